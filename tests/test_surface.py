"""The public surface. A deliberate change of it updates this list, the docs and CHANGELOG together."""

from __future__ import annotations

import ast
import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import hiplan
import hiplan.training

SURFACE = {
    "hiplan": """
        Acted Agent ApiModel Completion Decoding Endpoint Environment Episode Executor HiplanError Limits Model
        NoPlanner OracleExecutor OraclePlanner Plan PlanGraph PlanReady PlanRevision PlanStep Planner ProgressiveTrainer
        Sampler ScriptedModel StepResult Task TaskSuite TrainConfig UserError load_agent load_model make_env
    """,
    "hiplan.planners": "FixedPlanner GivenPlans NoPlanner OraclePlanner Planner PlannerProtocol WrittenPlanner",
    "hiplan.executors": "Executor ExecutorProtocol OracleExecutor ScriptedExecutor WrittenExecutor",
    "hiplan.coordination": """
        Candidates Judge Limits Match Matcher PlanGraph PlanScore ReplanPolicy Replayed Scores Submission Tracker
        Unjudged adaplan by_executor by_judge by_rehearsal judge_plan llm_judge matching never on_failure replan replay
        rules_judge score_first_plans score_plan scores step_states
    """,
    "hiplan.envs": """
        ENVIRONMENTS Crafting Household Panel TaskMix TaskSuite fresh_panel make_env shipped_panel suite train_mix
    """,
    "hiplan.evaluation": """
        ByRole Cell EvalResult TEMPERATURES correlation cost cross_play deviations evaluate judged overlap paired
        paraphrased plan_reliance reliance swapped t_interval wilson
    """,
    "hiplan.report": """
        draw_curves draw_plan markdown_table print_transcript results_table transcript write_report
    """,
    "hiplan.training": """
        Algorithm AlgorithmConfig Collect Collector Credit Decision Loss Modulator ProgressiveTrainer Reward
        RewardWeights Rollout Schedule Stage TrainConfig group_center per_episode
    """,
}
NEEDS_TORCH = {"ProgressiveTrainer"}


@pytest.mark.parametrize("module", SURFACE)
def test_public_names_are_locked_and_resolve(module: str) -> None:
    names = set(SURFACE[module].split())
    home = importlib.import_module(module)
    assert set(home.__all__) == names
    assert len(home.__all__) == len(names)
    for name in names - NEEDS_TORCH:
        assert getattr(home, name) is not None
        assert name in dir(home)


@pytest.mark.parametrize("name", sorted(NEEDS_TORCH))
def test_names_that_need_torch_resolve(name: str) -> None:
    pytest.importorskip("torch")
    assert getattr(hiplan, name).__name__ == name


@pytest.mark.parametrize("package", [hiplan, hiplan.training], ids=lambda package: package.__name__)
def test_type_checkers_see_what_is_loaded_lazily(package: Any) -> None:
    tree = ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))
    seen = {
        alias.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("hiplan.")
        for alias in node.names
    }
    assert set(seen) == set(package.__all__)
    for name in seen if find_spec("torch") else set(seen) - NEEDS_TORCH:
        assert getattr(package, name) is getattr(importlib.import_module(seen[name]), name)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="module 'hiplan' has no attribute 'Plannner'"):
        hiplan.Plannner  # noqa: B018
    with pytest.raises(ImportError):
        from hiplan import agents  # noqa: F401


@pytest.mark.parametrize("module", SURFACE)
def test_public_names_say_what_they_are(module: str) -> None:
    for name in set(SURFACE[module].split()) - NEEDS_TORCH:
        value = getattr(importlib.import_module(module), name)
        if callable(value) and getattr(value, "__module__", "").startswith("hiplan"):
            assert value.__doc__ and not value.__doc__.startswith(f"{name}("), f"{module}.{name} has no docstring"
