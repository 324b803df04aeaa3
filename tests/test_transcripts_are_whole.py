"""Whatever models, planners and environments say, an episode can be written as JSON and read back."""

import json
import math
from collections.abc import Hashable
from dataclasses import replace

import pytest
from doubles import Letters, letters
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hiplan.coordination import Limits, never
from hiplan.executors import Executor
from hiplan.formats import JSON, parse_json, parse_numbered
from hiplan.model import Completion, Model, Request, ScriptedModel
from hiplan.plan import Plan, PlanRevision, PlanStep
from hiplan.planners import FixedPlanner, Planner
from hiplan.prompts import FULL
from hiplan.sampler import Job, Sampler
from hiplan.trace import Candidate, Episode

LONE = "\ud800 and \udfff"
ESCAPED = r"\ud800 and \udfff"


def again(episode: Episode) -> Episode:
    text = episode.to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    read = Episode.from_json(text)
    assert read.to_json() == text
    return read


def test_lone_surrogates_in_a_plan_are_replaced() -> None:
    text = f'{{"goal": "{ESCAPED}", "rationale": "{ESCAPED}", "steps": [{{"id": 1, "description": "{ESCAPED}"}}]}}'
    for plan in (
        parse_json(text),
        parse_numbered(f"{LONE}\n1. {LONE}"),
        Plan(steps=(PlanStep(id=1, description=LONE),)),
    ):
        assert plan.steps[0].description == "? and ?" and {plan.goal, plan.rationale} <= {"", "? and ?"}
        assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert PlanRevision(plan=None, reason=LONE).reason == "? and ?"
    with pytest.raises(ValidationError):
        Plan(steps=(PlanStep(id=1, description="a"),), goal=5)  # type: ignore[arg-type]


def test_an_episode_with_lone_surrogates_everywhere_can_be_kept() -> None:
    class Odd(Letters):
        def reset(self, task: object) -> str:
            return LONE

        def state_key(self) -> Hashable:
            class Key:
                def __repr__(self) -> str:
                    return LONE

            return Key()

    texts = {"planner": f'{{"goal": "{ESCAPED}", "steps": [{{"id": 1, "description": "say a"}}]}}', "executor": LONE}
    model = ScriptedModel(lambda conversation: texts[conversation.role])

    (episode,) = Sampler(model, Odd, replan=never, limits=Limits(turns=2)).run(
        [Job(letters(), Planner(replace(FULL, format=JSON)), Executor())]
    )
    read = again(episode)
    assert read.plan is not None and read.plan.goal == "? and ?" and read.turns[0].state_key == "? and ?"


NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(NUMBERS, max_size=5), NUMBERS)
def test_numbers_that_are_not_finite_are_kept(logprobs: list[float], score: float) -> None:
    """A model that diverged is what somebody wants to look at."""
    episode = Episode(letters(), "", candidates=[Candidate(None, score)])
    episode.conversation("executor").ask("go", 0)
    episode.conversation("executor").answer("a", "action", 0, ids=range(len(logprobs)), logprobs=logprobs)
    read = again(episode)
    known = (*read.conversations["executor"].segments[-1].logprobs, read.candidates[0].score)
    assert [repr(number) for number in known] == [repr(number) for number in (*logprobs, score)]


def test_a_rollout_of_a_diverged_model_can_be_read_back() -> None:
    class Diverged(Model):
        def complete(self, requests: list[Request]) -> list[Completion]:
            return [Completion("a", (1, 2), (math.nan, -math.inf), (5,)) for _ in requests]

    planner = FixedPlanner(Plan(steps=(PlanStep(id=1, description="say a"),)))
    (episode,) = Sampler(Diverged(), Letters).run([Job(letters(), planner, Executor())])
    logprobs = again(episode).conversations["executor"].segments[-1].logprobs
    assert math.isnan(logprobs[0]) and logprobs[1] == -math.inf
    assert '"logprobs":["nan","-inf"]' in episode.to_json()


def test_finite_numbers_are_written_as_numbers() -> None:
    job = Job(letters(), FixedPlanner(Plan(steps=(PlanStep(id=1, description="say a"),))), Executor())
    (episode,) = Sampler(ScriptedModel(["a"]), Letters).run([job])
    assert json.loads(episode.to_json())["turns"][0]["reward"] == 1.0
