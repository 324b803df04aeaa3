"""A run that is stopped anywhere resumes to the same end, bit for bit."""

import json
from pathlib import Path
from typing import Any

import pytest
from doubles import letters, random_model
from trainers import EXECUTOR, JOINT, PLANNER, Stopped, build, changed, replace_stage, watch

from hiplan.errors import CheckpointError
from hiplan.trace import ROLES

STAGES = (
    replace_stage(EXECUTOR, iterations=3, no_plan=0.3),
    replace_stage(PLANNER, iterations=3, kl=0.1),  # one checkpoint in its midst, one at its end
    replace_stage(JOINT, iterations=2),
)


def files(folder: Path) -> dict[str, bytes]:
    """All that must not depend on interruptions."""
    kept = [folder / "metrics.jsonl", *folder.glob("checkpoints/*/*")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in kept}


@pytest.fixture(scope="module", params=["split", "joint"])
def unbroken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    build(*STAGES, model=random_model(request.param, seed=1), folder=folder).train()
    return request.param, folder


@pytest.mark.parametrize("stops", [(0,), (2,), (3,), (5,), (7,), (1, 3, 6), (2, 2, 2)], ids=str)
def test_a_stopped_run_goes_on_to_the_same_end(
    unbroken: tuple[str, Path], stops: tuple[int, ...], tmp_path: Path
) -> None:
    mode, expected = unbroken
    for stop in stops:  # in the iteration with that number, after its update and before its checkpoint
        run = build(*STAGES, model=random_model(mode, seed=1), folder=tmp_path)

        def on_iteration(row: dict[str, Any], stop: int = stop) -> None:
            if row["iteration"] == stop:
                raise Stopped

        run.on_iteration = on_iteration
        with pytest.raises(Stopped):
            run.train()
    last = build(*STAGES, model=random_model(mode, seed=1), folder=tmp_path)
    assert last.resumed == (stops[-1] > 1)
    last.train()
    assert files(tmp_path) == files(expected)
    assert [row["iteration"] for row in last.metrics.rows] == list(range(8))


def test_a_finished_run_has_nothing_left_to_do(unbroken: tuple[str, Path]) -> None:
    mode, folder = unbroken
    before = files(folder)
    run = build(*STAGES, model=random_model(mode, seed=1), folder=folder)
    jobs = watch(run)
    run.train()
    assert not jobs and files(folder) == before


def test_a_checkpoint_of_another_run_is_refused(unbroken: tuple[str, Path]) -> None:
    mode, folder = unbroken
    with pytest.raises(CheckpointError, match="seed 0, not 1"):
        build(*STAGES, model=random_model(mode, seed=1), folder=folder, seed=1)
    with pytest.raises(CheckpointError, match="rank 2"):
        build(*STAGES, model=random_model(mode, seed=1, rank=2), folder=folder)
    other = random_model("joint" if mode == "split" else "split", seed=1)
    with pytest.raises(CheckpointError, match="other weights"):
        build(*STAGES, model=other, folder=folder)


def test_a_run_needs_no_folder_and_repeats_itself(unbroken: tuple[str, Path]) -> None:
    mode, folder = unbroken
    run = build(*STAGES, model=random_model(mode, seed=1))
    run.train()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert json.loads(json.dumps(run.metrics.rows)) == rows


def test_another_seed_is_another_run(unbroken: tuple[str, Path]) -> None:
    mode, folder = unbroken
    run = build(*STAGES, model=random_model(mode, seed=1), seed=5)
    run.train()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(
        mine["loss_executor"] != theirs["loss_executor"]
        for mine, theirs in zip(run.metrics.rows[:3], rows, strict=False)
    )


def test_a_warm_start_comes_before_the_first_stage_and_is_not_repeated(tmp_path: Path) -> None:
    settings = {"tasks": [letters(n, k=k) for n in (1, 2) for k in range(4)], "warm_start": 8, "folder": tmp_path}
    whole = build(*STAGES, **(settings | {"folder": None}))
    cold = whole.model.weights.state()
    whole.train()
    first = whole.metrics.rows[0]
    assert first["kind"] == "warm start" and first["loss_planner"] > 0 and first["loss_executor"] > 0
    assert [row["kind"] for row in whole.metrics.rows[1:]] == ["train"] * 8
    assert changed(cold, {k.removeprefix("start."): v for k, v in whole.learner.start.items()}) == set(ROLES)
    for stop in (0, 2):
        run = build(*STAGES, **settings)
        run.save()  # as a job does, which measures the base first

        def on_iteration(row: dict[str, Any], stop: int = stop) -> None:
            if row["iteration"] == stop:
                raise Stopped

        run.on_iteration = on_iteration
        with pytest.raises(Stopped):
            run.train()
    last = build(*STAGES, **settings)
    last.train()
    assert last.metrics.rows == whole.metrics.rows
    assert not changed(whole.model.weights.state(), last.model.weights.state())
