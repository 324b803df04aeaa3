"""What an endpoint, a file or a folder's name says reaches no terminal and no document as anything but text."""

import io
import json
from pathlib import Path

import pytest
import torch
from commands import Call
from endpoint import serve

from hiplan import Endpoint
from hiplan.coordination import PlanScore, Submission, llm_judge
from hiplan.errors import EndpointError
from hiplan.model import ScriptedModel
from hiplan.plan import Plan, PlanStep
from hiplan.report import markdown_table
from hiplan.report.diagnostics import Diagnostics, Section, write_diagnostics
from hiplan.report.terminal import Terminal
from hiplan.task import Task
from hiplan.training import checkpoint

HTML = "<img src=x onerror=alert(1)>|<b>"
KEPT = "&lt;img src=x onerror=alert(1)&gt;&#124;&lt;b&gt;"


def test_no_html_in_markdown(tmp_path: Path) -> None:
    """A page that shows the document would run it."""
    row = {"kind": "eval", "stage": HTML, "agent": HTML, "panel": HTML, "decoding": HTML, "success": 1.0}
    told = markdown_table([row])
    assert "<" not in told and told.count(KEPT) == 4 and len(told.splitlines()) == 3
    section = Section(title=f"{HTML}\n# a", note=f"{HTML}\n", head=("a", HTML), rows=((f"x\n{HTML}", "1"),))
    write_diagnostics(tmp_path, Diagnostics(title="t", about=f"`{HTML}`\n<b>", sections=(section,)))
    text = (tmp_path / "table.md").read_text()
    assert "<" not in text and text.count(KEPT) == 5 and len(text.splitlines()) == 9
    assert "&lt;img" not in (tmp_path / "diagnostics.json").read_text()


ROOT = Path(__file__).resolve().parents[1]
ANSI = "\x1b[2J\x1b[31mred\x1b]0;title\x07\x9b1m\u202e\r"  # clears, colours, names the window, turns text around
FOLDER = ANSI.replace("/", "")


def harmless(text: str) -> None:
    assert text.strip() and all(line.isprintable() for line in text.splitlines()), repr(text)


def test_an_endpoints_words_reach_no_terminal_as_they_are(tmp_path: Path, call: Call) -> None:
    pytest.importorskip("openai")
    with serve(lambda body: (400, {"error": {"message": f"no {ANSI}\nno"}})) as server:
        with pytest.raises(EndpointError) as caught:
            Endpoint(server.url, "m").ask([{"messages": [{"role": "user", "content": "a"}]}])
        assert str(caught.value).isprintable() and "\\x1b[31mred" in str(caught.value)
        planner = "planner=" + json.dumps({"url": server.url, "model": f"m{ANSI}"})
        options = [tmp_path / "p.jsonl", "--set", planner, "--set", "tasks=1"]
        done = call("plans", *options)
    assert done.code == 2 and len(done.err.splitlines()) == 1 and not done.out
    harmless(done.err)


@pytest.mark.parametrize("command", ["report", "inspect"])
def test_a_folders_name_reaches_no_terminal_as_it_is(command: str, tmp_path: Path, call: Call) -> None:
    run = tmp_path / FOLDER
    run.mkdir()
    for place in (run, tmp_path / f"absent{FOLDER}"):
        done = call(command, place)
        harmless(done.out + done.err)
        assert done.code == (0 if (command, place) == ("report", run) else 2)
    assert command != "report" or "\x1b" not in (run / "report.html").read_text()


def test_a_job_in_a_folder_with_such_a_name_says_so_harmlessly(tmp_path: Path, call: Call) -> None:
    options = ["--out", tmp_path / FOLDER, "--set", "panel_tasks=2", "--set", "eval_turns=1", "--set", "threads=1"]
    options += ["--set", "train.stages=[]"]
    for _ in range(2):  # it runs, and then refuses to write over the run
        done = call("train", *options)
        harmless(done.out + done.err)
    assert done.code == 2 and "already holds a run" in done.err


def test_a_damaged_checkpoint_speaks_harmlessly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("000001-0", "000002-0"):
        checkpoint.save_state(tmp_path / FOLDER / name, {"a": torch.zeros(1)}, {})
    header = json.dumps({f"t{ANSI}": {"dtype": f"{ANSI}\n", "shape": [1], "data_offsets": [0, 4]}}).encode()
    broken = len(header).to_bytes(8, "little") + header + bytes(4)
    (tmp_path / FOLDER / "000002-0" / "state.safetensors").write_bytes(broken)
    assert checkpoint.load_latest(tmp_path / FOLDER) is not None
    (record,) = caplog.records
    assert record.getMessage().isprintable()


def test_a_judge_is_asked_about_texts_with_lone_surrogates() -> None:
    plan = Plan(steps=(PlanStep(id=1, description="go"),))
    judge = llm_judge(ScriptedModel(['{"correctness": 4, "followability": 4, "standardisation": 4}']))
    assert judge([Submission(Task(env="e"), "\ud83d", plan, "\ud800")]) == [PlanScore(4, 4, 4)]


def test_the_terminal_shows_texts_as_texts() -> None:
    out = io.StringIO()
    Terminal(file=out, force_terminal=True, width=200).print(f"a{ANSI}\nb\tc", markup=False, highlight=False)
    assert out.getvalue().splitlines()[1:] == ["b c"] and "\x1b" not in out.getvalue()
