"""Several candidate plans: which is taken, what is kept of the others, and what a rehearsal leaves behind."""

from collections.abc import Callable, Sequence

import pytest
from test_agent import BETTER, DOOR, MAKE_DOOR

from hiplan.agent import Agent
from hiplan.coordination import Candidates, by_executor, by_judge, by_rehearsal
from hiplan.coordination.candidates import Choose, first
from hiplan.effects import Effects
from hiplan.envs import make_env
from hiplan.errors import ConfigError
from hiplan.evaluation import cost
from hiplan.executors import Executor, OracleExecutor, ScriptedExecutor
from hiplan.formats import parse_numbered, render_numbered
from hiplan.model import Completion, Decoding, Model, Request, ScriptedModel
from hiplan.plan import PlanRevision
from hiplan.planners import OraclePlanner, Planner
from hiplan.prompts import BRIEF
from hiplan.report import transcript
from hiplan.sampler import Job, Sampler
from hiplan.trace import Conversation, Episode

SHALLOW, NONSENSE, GOOD = "1. make door", "first a door", render_numbered(BETTER)


def script(plans: Sequence[str], actions: Sequence[str] = (), choice: str = "1") -> ScriptedModel:
    """The planner's texts in order; the executor's, who answers a question for a plan with ``choice``."""
    lines = {"planner": list(plans), "executor": list(actions)}

    def say(conversation: Conversation) -> str:
        if "Which plan" in conversation.segments[-1].text:
            return choice
        return lines[conversation.role].pop(0)

    return ScriptedModel(say)


class Watched(Model):
    """A model that notes how it was to sample."""

    def __init__(self, model: ScriptedModel) -> None:
        self.model, self.seen = model, list[tuple[str, float, int]]()

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        self.seen += [(r.role, r.decoding.temperature, r.seed) for r in requests]
        return self.model.complete(requests)


def play(plans: Sequence[str], choose: Choose, *, n: int = 3, choice: str = "1", retries: int = 0) -> Episode:
    planner = Candidates(Planner(BRIEF, retries), n, choose)
    return Agent(script(plans, MAKE_DOOR, choice), planner, Executor(BRIEF)).run(DOOR)


def test_the_judge_takes_the_best() -> None:
    episode = play([SHALLOW, GOOD, NONSENSE], by_judge)
    assert episode.plan is not None and episode.plan.steps == BETTER.steps
    # shallow: 1 of 3 subgoals covered, none after what it needs: 1 + 4 * 1/6 = 5/3; mean with 5 and 5: 35/9
    assert [c.score for c in episode.candidates] == [pytest.approx(35 / 9), 5.0, None]
    assert [c.chosen for c in episode.candidates] == [False, True, False]
    assert episode.success
    assert "candidate 2 of 3; scores: 3.9, 5, not scored" in transcript(episode)


def test_the_episode_goes_on_in_the_conversation_of_the_plan_taken() -> None:
    episode = play([SHALLOW, GOOD, GOOD], by_judge)
    assert [s.text for s in episode.conversations["planner"].segments][-1] == GOOD
    others = [c.conversations for c in episode.candidates]
    assert [len(o) for o in others] == [1, 0, 1]
    assert others[0][0].segments[-1].text == SHALLOW
    assert [c.score for c in episode.candidates][2] is None, "the same steps are weighed once"


def test_a_candidate_that_was_mended_is_a_candidate() -> None:
    episode = play([SHALLOW, NONSENSE, GOOD], by_judge, n=2, retries=1)
    assert episode.success and len(episode.candidates) == 2 and episode.mistakes == {"planner": 1}


def test_where_no_text_can_be_read_there_is_no_plan_and_the_record_says_why() -> None:
    episode = play([NONSENSE] * 3, by_judge)
    assert episode.plan is None and "no step" in episode.plans[0].error
    assert [c.chosen for c in episode.candidates] == [True, False, False]
    assert "planner" in episode.conversations


@pytest.mark.parametrize(("choice", "taken"), [("2", 1), ("Plan 3.", 2), ("none", 0), ("7", 0)])
def test_the_executor_is_asked(choice: str, taken: int) -> None:
    episode = play([SHALLOW, "1. make plank\n2. make door after 1", GOOD], by_executor(BRIEF), choice=choice)
    assert [c.chosen for c in episode.candidates].index(True) == taken
    asked = episode.candidates[0].conversations[-1]
    assert asked.role == "executor" and "Plan 3:\n1. make plank" in asked.segments[1].text
    assert asked not in episode.conversations.values()


def test_a_rehearsal_takes_what_works_and_leaves_the_environment_as_it_was() -> None:
    whole = lambda e: e.plan is not None and len(e.plan.steps) == 3  # noqa: E731
    choose = by_rehearsal(ScriptedExecutor(lambda e, ready: MAKE_DOOR[len(e.turns)] if whole(e) else "dance"))
    planner = Candidates(Planner(BRIEF), 2, choose)
    episode = Agent(script([SHALLOW, GOOD], MAKE_DOOR), planner, Executor(BRIEF)).run(DOOR)
    assert [c.score for c in episode.candidates] == [0.0, 1.0]
    assert episode.candidates[1].turns == len(MAKE_DOOR)
    assert episode.success and [t.action for t in episode.turns] == MAKE_DOOR, "every item had to be made again"
    spent = cost(episode)
    assert spent.turns == len(MAKE_DOOR) + sum(c.turns for c in episode.candidates)
    assert spent.calls == 2 + len(MAKE_DOOR)


def test_a_planner_revises_in_rehearsals_too() -> None:
    better = "2. make plank\n3. make hinge\n1. make door after 2, 3"
    actions = ["get 4 plank", *MAKE_DOOR]
    model = Watched(script([SHALLOW, "1. make hinge", better, "keep", better], [*actions, *["dance"] * 5, *actions]))
    choose = by_rehearsal(Executor(BRIEF), Planner(BRIEF))
    episode = Agent(model, Candidates(Planner(BRIEF), 2, choose), Executor(BRIEF)).run(DOOR)
    assert [c.score for c in episode.candidates] == [1.0, 0.0] and episode.success
    rehearsed, *_ = episode.candidates[0].conversations
    assert [s.text for s in rehearsed.segments if s.author == "assistant"] == [better], "beyond the plan itself"
    assert cost(episode).calls == len(model.seen), "nothing is counted twice"
    written = [s.text for s in episode.conversations["planner"].segments if s.author == "assistant"]
    assert written == [SHALLOW, better], "the conversation went on from the plan, not from the rehearsal"


def test_planners_without_a_model_can_be_candidates() -> None:
    episode = Agent(script([]), Candidates(OraclePlanner(), 2, by_judge), OracleExecutor()).run(DOOR)
    assert episode.success and [c.score for c in episode.candidates] == [0.0, None]


def test_candidates_are_sampled_at_a_temperature_of_their_own() -> None:
    model = Watched(script([SHALLOW, GOOD], MAKE_DOOR))
    planner = Candidates(Planner(BRIEF), 2, by_judge, temperature=0.8)
    (episode,) = Sampler(model, make_env, Decoding(0.0)).run([Job(DOOR, planner, Executor(BRIEF))])
    assert episode.success
    assert [t for role, t, _ in model.seen if role == "planner"] == [0.8, 0.8]
    assert {t for role, t, _ in model.seen if role == "executor"} == {0.0}
    assert len({seed for _, _, seed in model.seen}) == len(model.seen)


@pytest.mark.parametrize("choose", [by_judge, by_executor(BRIEF), by_rehearsal(OracleExecutor()), first])
def test_apps_and_rollouts_play_the_same_episode_and_keep_it(choose: Callable[..., object]) -> None:
    planner = Candidates(Planner(BRIEF), 2, choose)  # type: ignore[arg-type]
    (rolled,) = Sampler(script([SHALLOW, GOOD], MAKE_DOOR), make_env).run([Job(DOOR, planner, Executor(BRIEF))])
    played = Agent(script([SHALLOW, GOOD], MAKE_DOOR), planner, Executor(BRIEF)).run(DOOR)
    assert played.to_json() == rolled.to_json() == Episode.from_json(rolled.to_json()).to_json()


def test_a_conversation_is_nobody_elses() -> None:
    """A planner that keeps no conversation gets none from a rehearsal."""
    choose = by_rehearsal(Executor(BRIEF), OraclePlanner())
    model = script([], [*MAKE_DOOR, *["dance"] * 5, *MAKE_DOOR])
    planner = Candidates(Alternating(), 2, choose)
    episode = Agent(model, planner, Executor(BRIEF)).run(DOOR)
    assert episode.success and "planner" not in episode.conversations


class Alternating(OraclePlanner):
    """Says the oracle's plan, then a shallow one."""

    asked = 0

    def plan(self, episode: Episode) -> Effects[PlanRevision]:
        self.asked += 1
        return (yield from super().plan(episode)) if self.asked % 2 else PlanRevision(plan=parse_numbered(SHALLOW))


def test_there_is_at_least_one() -> None:
    with pytest.raises(ConfigError, match="n must be at least 1 candidate plan, got 0"):
        Candidates(Planner(BRIEF), 0, by_judge)


def test_an_agent_plans_without_acting() -> None:
    model = Watched(script([SHALLOW, NONSENSE, NONSENSE, GOOD, SHALLOW]))
    plans = Agent(model, Planner(BRIEF), Executor(BRIEF), decoding=Decoding(0.0)).plan(DOOR, n=4)
    assert [[step.description for step in plan.steps] for plan in plans] == [
        ["make door"],
        [step.description for step in BETTER.steps],
    ]
    assert {role for role, _, _ in model.seen} == {"planner"} and {t for _, t, _ in model.seen} == {1.0}
    alone = Watched(script([GOOD]))
    assert len(Agent(alone, Planner(BRIEF)).plan(DOOR)) == 1 and alone.seen[0][1] == 0.0
