"""Targets: reports, terminal views and exports of hostile episodes, studies and runs."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from io import BytesIO, TextIOWrapper
from pathlib import Path
from random import Random
from unittest import mock

import networkx as nx
from matplotlib.figure import Figure
from rich.console import Console

from attack.core import Target, chance, check_terminal
from attack.files import COSTS, DIAGNOSTICS, KEYS, METRICS, check_markdown, episodes, folder
from attack.mutate import KINDS, damaged, encoded, hostile, json_files, line_files, mutated
from attack.texts import CUP, DOOR, plan_of
from experiments.ablate import summarize
from hiplan.coordination import PlanGraph
from hiplan.plan import Plan, ReplanKind, ReplanReason, StepStatus
from hiplan.report import draw_curves, draw_plan, markdown_table, print_transcript, transcript, write_report
from hiplan.report.diagnostics import Diagnostics, Section, write_diagnostics
from hiplan.report.overview import overview
from hiplan.runs.settings import RunConfig
from hiplan.trace import Candidate, Conversation, Episode, PlanRecord, StopReason, Turn, Verdict, printable

WORDS = (*KINDS["markup"], *KINDS["terminal"], *KINDS["bidi"], *KINDS["controls"])
PART = "\n--\n"  # between the texts of one input


def make_parts(rng: Random) -> str:
    return PART.join(hostile(rng, WORDS) for _ in range(rng.randint(2, 12)))


class Parts:
    """Texts of an input in turn, as an episode can hold them."""

    def __init__(self, text: str) -> None:
        self.parts, self.place = printable(text).split(PART), -1

    def __call__(self) -> str:
        self.place += 1
        return self.parts[self.place % len(self.parts)]


def episode_of(text: str) -> Episode:
    """An episode that holds the input's texts wherever it can hold texts."""
    rng, say = chance(text), Parts(text)
    episode = Episode(rng.choice((DOOR, CUP)).model_copy(update={"env": say() or "e"}), say())
    turns = rng.randint(0, 6)
    plan: Plan | None = None
    for number, turn in enumerate(sorted({0, *rng.choices(range(turns + 1), k=rng.randint(0, 3))})):
        kept, lost = number > 0 and rng.random() < 0.3, rng.random() < 0.2
        if not kept:
            goal, rationale = say() if rng.random() < 0.5 else "", say()
            plan = None if lost else plan_of(say()).model_copy(update={"goal": goal, "rationale": rationale})
        reason = ReplanReason(kind=rng.choice(list(ReplanKind)), step=rng.choice((None, 1, 2, 99))) if number else None
        episode.plans.append(PlanRecord(turn, plan, reason, kept, say() if lost else ""))
    for index in range(turns):
        known = [r.plan for r in episode.plans if r.turn <= index][-1]
        step = rng.choice(known.steps).id if known else None
        verdict = rng.choice(list(Verdict)) if known else None
        done = (step,) if step and rng.random() < 0.5 else ()
        reward, refused = rng.choice((0.0, 0.5, -1.0)), rng.random() < 0.3
        episode.turns.append(
            Turn(index, say(), say(), reward, refused, verdict, step, say(), say(), done, (step or 1,))
        )
    for role in ("planner", "executor"):
        conversation = Conversation(role)  # type: ignore[arg-type]
        conversation.ask(say(), 0, author="system")
        for index in range(turns):
            conversation.ask(say(), index)
            conversation.answer(say(), "plan" if role == "planner" else "action", index, reasoning=say())
            if rng.random() < 0.2:
                conversation.refuse(say())
        episode.conversations[role] = conversation  # type: ignore[index]
    if rng.random() < 0.3:
        episode.candidates = [Candidate(plan_of(say()), rng.choice((None, 0.5)), chosen=i == 0) for i in range(3)]
    episode.stop, episode.error = rng.choice((None, *StopReason)), say() if rng.random() < 0.3 else ""
    return episode


# -- terminal ---------------------------------------------------------------------------------


def attack_terminal(text: str) -> None:
    """Nothing that was said moves the cursor, and none of it reads as a line of the report's own."""
    episode = episode_of(text)
    told = transcript(episode)
    check_terminal(told)
    turns = [line for line in told.split("\n") if re.match(r"Turn \d", line)]
    assert len(turns) == len(episode.turns), "a turn was forged in the transcript"
    raw = BytesIO()
    with TextIOWrapper(raw, encoding="utf-8", newline="\n") as out:
        console = Console(file=out, width=80)
        print_transcript(episode, console)
        console.print(overview({0: episode, 1: episode}))
        out.flush()
        check_terminal(raw.getvalue().decode())


# -- exports ----------------------------------------------------------------------------------


def attack_graph(text: str) -> None:
    """Mermaid, GraphML and JSON hold the plan's steps and arrows, and nothing else."""
    plan, rng = plan_of(printable(text), most=9), chance(text)
    statuses = {step.id: rng.choice(list(StepStatus)) for step in plan.steps}
    graph = PlanGraph(plan)
    edges = {(before, step.id) for step in plan.steps for before in step.after}
    read = nx.parse_graphml(graph.to_graphml(statuses), node_type=int)
    assert set(read.nodes) == set(statuses) and set(read.edges) == edges, "GraphML holds another graph"
    known = json.loads(graph.to_json(statuses))
    assert [node["label"] for node in known["nodes"]] == [step.description for step in plan.steps], "JSON differs"
    first, *lines = graph.to_mermaid(statuses).rstrip("\n").split("\n")
    body = lines[: len(plan.steps) + len(edges)]
    nodes = [re.fullmatch(r'    s(\d+)\["[○▶✓✗] \1\. [^"<>&`\[\]{}|\x00-\x1f\x7f]*"\]:::\w+', line) for line in body]
    arrows = [re.fullmatch(r"    s\d+ --> s\d+", line) for line in body]
    assert first == "flowchart TD" and all(a or b for a, b in zip(nodes, arrows, strict=True)), "Mermaid holds more"
    assert all(line.startswith("    classDef ") for line in lines[len(body) :]), "Mermaid holds more"


def attack_markdown(text: str) -> None:
    """No HTML and no more rows or columns than there are."""
    rng, say = chance(text), Parts(text)
    width = rng.randint(1, 4)
    rows = tuple(tuple(say() for _ in range(width)) for _ in range(rng.randint(0, 4)))
    section = Section(title=say(), note=say(), head=tuple(say() for _ in range(width)), rows=rows)
    plain = Section(title="t", head=section.head, rows=rows)
    with folder() as place:
        check_markdown(write_diagnostics(place, Diagnostics(title=say(), about=say(), sections=(section,))))
        table = write_diagnostics(place, Diagnostics(title="t", sections=(plain,)))
    lines = [line for line in table.split("\n") if line and not line.startswith("### ")]
    assert len(lines) == 2 + len(rows), "a table's row is broken"
    assert all(len(re.findall(r"(?<!\\)\|", line)) == width + 1 for line in lines), "a table has another column"
    evals = [
        {"kind": "eval", "stage": say(), "panel": say(), "agent": say(), "decoding": say(), "success": 0.5, **COSTS}
    ]
    check_markdown(markdown_table(evals))


# -- the page ---------------------------------------------------------------------------------

ALLOWED = {  # the report's own tags, and what may stand in them
    "html": {"lang"}, "head": set(), "meta": {"charset", "name", "content", "http-equiv"}, "title": set(),
    "style": set(), "body": set(), "main": set(), "header": set(), "h1": set(), "h2": set(), "h3": set(),
    "p": {"class"}, "div": {"class", "tabindex"}, "span": {"class"}, "b": set(), "code": set(), "pre": set(),
    "table": {"class"}, "tr": {"class"}, "th": {"class"}, "td": {"class", "style", "data-head"},
    "picture": set(), "source": {"media", "srcset"}, "img": {"alt", "src", "class"},
    "details": {"open"}, "summary": set(),
}  # fmt: skip
VOID = {"meta", "img", "source"}
PICTURE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]*")


class Page(HTMLParser):
    """Reads a page as a browser would, and objects to what the report does not write."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ALLOWED, f"the tag <{tag!a}> was injected"
        for name, value in attrs:
            assert name in ALLOWED[tag], f"the attribute {name!a} was injected into <{tag}>"
            if name in ("src", "srcset"):
                assert PICTURE.fullmatch(value or ""), f"{name} was injected"
            if name in ("class", "style", "tabindex", "media"):
                assert re.fullmatch(r"[\w #:;.,%()-]*", value or ""), f"{name} {value!a} was injected"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag!a}> was injected"

    def handle_comment(self, data: str) -> None:
        raise AssertionError("a comment was injected")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError("a declaration was injected")


def check_page(html: str) -> None:
    page = Page()
    page.feed(html)
    page.close()
    assert not page.open, "a tag was left open"
    style = html.partition("<style>")[2].partition("</style>")[0]
    assert "attack" not in style, "style was injected"
    check_terminal(html)


def undrawn(run: Path) -> str:
    """The run's page, its pictures blank: drawing takes most of the time, and has a target of its own."""
    with mock.patch.object(Figure, "savefig", lambda self, file, **_: None):
        return write_report(run).read_text(encoding="utf-8")


def attack_page(text: str) -> None:
    """A run whose every text is hostile."""
    rng, say = chance(text), Parts(text)
    evals = [
        {"kind": "eval", "stage": say(), "panel": rng.choice(("dev", say())), "agent": say(), "decoding": say(),
         "success": 0.5, "low": 0.1, "high": 0.9, "n": 4, "iteration": i}
        for i in range(3)
    ]  # fmt: skip
    rows = ((say(), say()), (say(), say()))
    study = Diagnostics(title=say(), about=say(), sections=(Section(title=say(), note=say(), head=rows[0], rows=rows),))
    files = {
        "metrics__jsonl": "\n".join(map(json.dumps, evals)),
        "transcripts__jsonl": "\n".join(episode_of(text[i:]).to_json() for i in range(2)),
        "diagnostics__json": study.model_dump_json(),
        "config__yaml": f"seed: {say()}\n{say()}\n",
        "panels__json": json.dumps({say(): {say(): say()}, say(): say()}),
        "environment__json": json.dumps({say(): say(), "versions": {say(): say()}}),
        "times__json": json.dumps({"wall_s": 9, "hardware": say()}),
    }
    with folder(**{name: encoded(data) for name, data in files.items()}) as run:
        check_page(undrawn(run))


RUN_FILES = {  # the files of a run that its page is made from
    "metrics.jsonl": line_files(*METRICS, own=KEYS),
    "times.json": json_files('{"wall_s": 12.5, "memory_mb": 900}', own=KEYS),
    "panels.json": json_files('{"crafting-dev-0": {"hash": "0123", "tasks": 2, "panel": "dev"}}'),
    "environment.json": json_files('{"python": "3.11", "versions": {"torch": "2"}, "parameters": {"total": 3}}'),
    "config.yaml": lambda rng: encoded(mutated(rng, "seed: 1\ntrain:\n  groups: 2\n", ("seed: ", *KINDS["markup"]))),
    "diagnostics.json": json_files(DIAGNOSTICS, own=(*KEYS, *KINDS["markup"])),
    "transcripts.jsonl": line_files(*episodes()[:3], own=KINDS["markup"]),
    "curves.png": lambda rng: damaged(rng, b"\x89PNG\r\n\x1a\n" + bytes(40)),
}


WHOLE = {
    "metrics__jsonl": encoded("".join(f"{line}\n" for line in METRICS)),
    "times__json": b'{"wall_s": 3, "memory_mb": 900}',
    "panels__json": b"{}",
    "environment__json": b'{"parameters": {"total": 3, "trained": 1}}',
}


def make_run(rng: Random) -> bytes:
    name = rng.choice(list(RUN_FILES))
    return name.encode() + b"\0" + RUN_FILES[name](rng)


def attack_run(data: bytes) -> None:
    """The page of a run of which one file is damaged."""
    name, _, damaged_file = data.partition(b"\0")
    with folder(**WHOLE | {name.decode().replace(".", "__"): damaged_file}) as run:
        check_page(undrawn(run))


def attack_summary(data: bytes) -> None:
    """What a study reads of such a run."""
    name, _, damaged_file = data.partition(b"\0")
    with folder(**WHOLE | {name.decode().replace(".", "__"): damaged_file}) as run:
        json.dumps(summarize(run, RunConfig(), {"arm": "main", "seed": 0}, None))


# -- pictures ---------------------------------------------------------------------------------


def attack_pictures(text: str) -> None:
    """Pictures of a hostile episode and of hostile curves."""
    rng, drawn = chance(text), BytesIO()
    draw_plan(episode_of(text), drawn)
    assert drawn.getvalue().startswith(b"\x89PNG")
    odd = (0.5, -1e9, 1e300, float("nan"), float("inf"), None, 0, True, "0.5")
    train = [
        {"kind": "train", "stage": rng.choice(("a", text[:50])), "iteration": i}
        | {key: rng.choice(odd) for key in ("success", "adherence", "turns", "reward_planner", "plan_kl")}
        for i in range(rng.randint(0, 5))
    ]
    evals = [
        {"kind": "eval", "panel": "dev", "stage": "a", "iteration": i, "success": rng.choice(odd)} for i in range(2)
    ]
    with folder() as place:
        assert draw_curves([*train, *evals], place / "curves.png").read_bytes().startswith(b"\x89PNG")


TARGETS = (
    Target("terminal", make_parts, attack_terminal, 12_000, 12.0),
    Target("Mermaid, GraphML, JSON", make_parts, attack_graph, 20_000, 1.0),
    Target("Markdown", make_parts, attack_markdown, 30_000, 0.5),
    Target("page of a hostile run", make_parts, attack_page, 3_000, 60.0),
    Target("page of a damaged run", make_run, attack_run, 8_000, 15.0),
    Target("run of a study", make_run, attack_summary, 10_000, 0.7),
    Target("pictures", make_parts, attack_pictures, 400, 400.0),
)
