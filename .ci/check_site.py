"""Check the built documentation: nothing is loaded from the network, and every local link leads to a file.

    python .ci/check_site.py site

The generator's strict mode checks links between Markdown pages. This sees what it produced: also pictures, raw HTML,
style sheets, and reports that are copied as they are.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"stylesheet", "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch", "icon", "manifest"}
FETCHED = {"mermaid", "glightbox", "pyodide"}  # the site's script loads what draws these from a public server
IN_CSS = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""")


class Page(HTMLParser):
    """Collects what a page loads and what it links to, each with its line."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[tuple[int, str]] = []
        self.links: list[tuple[int, str]] = []
        self._style = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attributes}
        self._style = tag == "style"
        line = self.getpos()[0]
        loads = [known[name] for name in ("src", "poster", "data") if known.get(name)]
        loads += [part.split()[0] for part in known.get("srcset", "").split(",") if part.strip()]
        if tag == "link" and LOADED & set(known.get("rel", "").lower().split()):
            loads.append(known.get("href", ""))
        if drawn := FETCHED & set(known.get("class", "").split()):
            loads.append(f"https://the-script-for/{min(drawn)}")
        if tag == "a" and known.get("href"):
            self.links.append((line, known["href"]))
        self.loads += [(line, address) for address in loads]
        self.loads += [(line, address) for address in IN_CSS.findall(known.get("style", ""))]

    def handle_data(self, data: str) -> None:
        if self._style:
            self.loads += [(self.getpos()[0], address) for address in IN_CSS.findall(data)]

    def handle_endtag(self, tag: str) -> None:
        self._style = self._style and tag != "style"


def missing(site: Path, page: Path, address: str) -> bool:
    """Whether ``address`` on ``page`` is a local one that leads to no file."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc or not parts.path:
        return False
    target = site / unquote(parts.path).lstrip("/") if parts.path.startswith("/") else page.parent / unquote(parts.path)
    return not (target / "index.html" if target.is_dir() else target).is_file()


def problems(site: Path) -> list[str]:
    """Every problem of the site, each in one line."""
    found = []
    for path in sorted(site.rglob("*.html")):
        page = Page()
        page.feed(path.read_text(encoding="utf-8"))
        for line, address in page.loads:
            if urlsplit(address).netloc:
                found.append(f"{path}:{line}: loads {address!r} from the network")
        for line, address in page.loads + page.links:
            if path.name != "404.html" and missing(site, path, address):
                found.append(f"{path}:{line}: {address!r} leads to no file")
    for path in sorted(site.rglob("*.css")):
        found += [f"{path}: loads {a!r} from the network" for a in IN_CSS.findall(path.read_text(encoding="utf-8"))]
    return found


def main() -> int:
    if len(sys.argv) != 2 or not Path(sys.argv[1], "index.html").is_file():
        print("usage: python .ci/check_site.py SITE, where SITE is a folder with an index.html", file=sys.stderr)
        return 2
    found = problems(Path(sys.argv[1]))
    print("\n".join(found) or f"{sys.argv[1]}: nothing is loaded from the network, every local link leads to a file")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
