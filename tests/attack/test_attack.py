"""A small attack on every target, and that the attack itself notices what it should. ``make attack`` does far more."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from attack import codec, faults, pool, registry, summary
from attack.core import CONTROLS, LIMIT, Target, attempt, check_terminal, input_of
from attack.files import check_markdown
from attack.kills import Killed, differences
from attack.pool import Tally
from attack.rendering import check_page
from hiplan.trace import printable

SECONDS = 0.3  # of each target, roughly
MOST = 200


@pytest.mark.parametrize("target", registry.TARGETS, ids=lambda target: target.name)
def test_no_input_breaks_what_reads_it(target: Target) -> None:
    for index in range(min(MOST, max(2, int(1000 * SECONDS / target.ms)))):
        found = attempt(target, 0, index).finding
        assert found is None, f"python tests/attack/run.py --target {target.name!r} --index {index}: {found}"


def test_inputs_depend_on_seed_and_index_alone() -> None:
    for target in registry.TARGETS[::5]:
        first, second, other = ([input_of(target, seed, i) for i in range(5)] for seed in (3, 3, 4))
        assert first == second != other


def test_names_are_unique_and_the_split_is_exact() -> None:
    assert len(registry.BY_NAME) == len(registry.TARGETS) + len(faults.TARGETS)
    for inputs in (1_000, 1_000_000):
        counts = registry.split(registry.TARGETS, inputs)
        assert sum(counts.values()) == inputs and min(counts.values()) >= 1
        cut = pool.chunks(counts)
        assert sum(stop - start for _, start, stop in cut) == inputs


def test_the_runner_sees_hung_calls_dead_processes_and_raw_exceptions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    multiprocessing.get_context("forkserver").set_forkserver_preload(["attack.registry", "attack.kills"])
    n, tallies = 12, {target.name: Tally() for target in faults.TARGETS}
    queue = [(name, start, start + n // 2) for name in tallies for start in (0, n // 2)]
    pool.attack_all(queue, 0, 2, 0.2, tmp_path, lambda name, tally: tallies[name].add(tally))
    for target in faults.TARGETS:
        bad = [i for i in range(n) if input_of(target, 0, i)[0] < 60]
        tally = tallies[target.name]
        assert 0 < tally.bad == len(bad) and tally.inputs == n
        assert min(finding.index for _, finding in tally.kinds.values()) == bad[0]
    said = {name: " ".join(finding.message for _, finding in tally.kinds.values()) for name, tally in tallies.items()}
    assert "too long" in said["sleeps"] and "in one call" in said["hangs"] and "exit code -6" in said["dies"]
    assert "KeyError: 'raw'" in said["raises"] and tallies["raises"].refused


def test_an_alarm_ends_an_input_in_this_process() -> None:
    target = registry.BY_NAME["sleeps"]
    index = next(i for i in range(99) if input_of(target, 0, i)[0] < 60)
    outcome = attempt(target, 0, index, limit=0.1)
    assert outcome.finding and outcome.seconds < LIMIT


PAGE = "<!doctype html><html lang='en'><head><style>b {}</style></head><body><p class='note'>{}</p></body></html>"
TOLD = "&lt;x-attack&gt; and <b>bold</b>"


@pytest.mark.parametrize(
    "injected",
    ["<x-attack>", "<script>attack()</script>", "<b attack>", "<img src=http://attack.invalid/a>", "<!-- a -->", "</p>",
     "<p class='note' onclick='attack()'>a</p>", "<a href='javascript:attack()'>a</a>", "\x1b[31m", "\u202e", "<p>"],
)  # fmt: skip
def test_the_checks_of_pages_see_what_is_injected(injected: str) -> None:
    check_page(PAGE.replace("{}</p>", f"{TOLD}</p>"))
    with pytest.raises(AssertionError):
        check_page(PAGE.replace("{}</p>", f"{injected}</p>"))


def test_the_checks_of_terminals_and_markdown_see_what_is_injected() -> None:
    check_terminal("plain\ttext\nand é 中 ✓")
    for mark in ("\x1b[0m", "\x9b0m", "\x07", "\u2066", "\ud800"):
        assert CONTROLS.search(mark)
        with pytest.raises(AssertionError):
            check_terminal(f"a{mark}b")
    check_markdown("a < b and &lt;b&gt;")
    with pytest.raises(AssertionError):
        check_markdown("a <b>")


def test_the_attack_on_a_codec_sees_forged_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    target, coded = registry.BY_NAME["chat codec, phi3"], codec.codec_of("phi3")
    naive = coded.tokenizer.backend_tokenizer
    monkeypatch.setattr(coded, "content", lambda text: tuple(naive.encode(printable(text)).ids))
    found = [outcome.finding for i in range(40) if (outcome := attempt(target, 0, i)).finding]
    assert any("a mark was forged" in finding.message for finding in found)


def test_runs_that_differ_by_a_byte_or_a_file_differ() -> None:
    assert differences({"a": b"1", "b": b"2"}, {"a": b"1", "b": b"2"}) == []
    assert differences({"a": b"1", "b": b"2"}, {"a": b"0", "c": b"2"}) == ["a", "b", "c"]


def test_the_report_replaces_the_figures_alone(tmp_path: Path) -> None:
    path = tmp_path / "attack.md"
    path.write_text(f"before\n{summary.MARKS[0]}\nold\n{summary.MARKS[1]}\nafter\n")
    tally = Tally(inputs=1_000, refused=10, seconds=2.0, slowest=(0.25, 7))
    for _ in range(2):
        summary.write_report(path, ["python", "run.py"], {"plan file": tally}, [Killed("trainer", 2, 9, 7)], 61.0)
    text = path.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| plan file | 1,000 | 990 | 10 | 0 | 2.0 | 0.25 s (#7) |" in text
    assert "1,000 inputs and 9 kills in 1 min" in text and "trainer: kills 9, runs 2" in text
    path.write_text("no marks")
    with pytest.raises(ValueError, match="has no lines"):
        summary.write_report(path, [], {}, [], 0.0)
