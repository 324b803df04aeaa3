"""Diagnostics: hand-computed intervals and counts, and agents of which one knows how much they owe to the plan."""

import math
import random
from collections.abc import Hashable, Sequence
from dataclasses import replace

import pytest
import torch
from doubles import random_model

from hiplan.coordination import Limits
from hiplan.envs import make_env, train_mix
from hiplan.evaluation import (
    ByRole,
    correlation,
    cost,
    cross_play,
    deviations,
    judged,
    overlap,
    paired,
    paraphrased,
    plan_reliance,
    reliance,
    swapped,
    t_interval,
)
from hiplan.evaluation.diagnostics import CONDITIONS, USED_UP
from hiplan.executors import Executor
from hiplan.formats import parse_numbered
from hiplan.model import Decoding, ScriptedModel
from hiplan.models.local import LocalModel
from hiplan.plan import Plan, ReplanKind, ReplanReason
from hiplan.planners import OraclePlanner, Planner
from hiplan.prompts import BRIEF
from hiplan.sampler import Job, Sampler
from hiplan.task import StepResult, Task
from hiplan.trace import Candidate, Conversation, Episode, PlanRecord, Turn, Verdict
from hiplan.training.plan_kl import plan_kl, with_plan

GREEDY = Decoding(0.0)
ON, OFF, EARLY = Verdict.ON_PLAN, Verdict.OFF_PLAN, Verdict.PREMATURE


# -- statistics --------------------------------------------------------------------------------


def test_t_intervals_by_hand() -> None:
    # mean 3, standard deviation 1, t(0.975, 2) = 4.3027: half width 4.3027 / sqrt(3)
    assert t_interval([2, 3, 4]) == pytest.approx((3, 3 - 2.4841, 3 + 2.4841), abs=1e-3)
    mean, low, high = t_interval([5.0])
    assert mean == 5 and math.isnan(low) and math.isnan(high)


def test_differences_are_paired_by_task() -> None:
    one, other = [[1, 1, 0, 1], [1, 0, 1, 1]], [[0, 1, 0, 1], [0, 0, 1, 0]]
    assert paired(one, other) == pytest.approx(t_interval([0.25, 0.5]))
    assert paired(one[:1], other[:1]) == pytest.approx(t_interval([1, 0, 0, 0]))  # over tasks where there is one seed
    assert paired([[1, 0]], [[1, 0]]) == (0, 0, 0)


def test_plan_reliance_by_hand() -> None:
    assert plan_reliance(0.8, 0.2) == pytest.approx(0.75)
    assert plan_reliance(0.5, 0.6) == pytest.approx(-0.2)
    assert math.isnan(plan_reliance(0.0, 0.0))


def test_rank_correlation() -> None:
    assert correlation([1, 2, 5, 4], [-1, 0, 1, 1]) == pytest.approx(0.9487, abs=1e-4)
    assert math.isnan(correlation([5, 5], [0, 1])) and math.isnan(correlation([4, 5], [1, 1]))


# -- plans -------------------------------------------------------------------------------------


def test_a_plan_is_swapped_for_the_nearest_in_length_of_the_same_environment() -> None:
    plans = {
        name: parse_numbered(text)
        for name, text in {
            "a": "1. x\n2. y",
            "b": "1. x\n2. y",  # the same words as a: no swap
            "c": "1. z",
            "d": "1. p\n2. q\n3. r",
            "e": "1. other\n2. place",
        }.items()
    }
    envs = dict.fromkeys("abcd", "crafting") | {"e": "household"}
    found = swapped(plans, envs)
    assert {mine: next(n for n, p in plans.items() if p is theirs) for mine, theirs in found.items()} == {
        "a": "c", "b": "c", "c": "a", "d": "a",
    }  # fmt: skip


def test_a_paraphrase_changes_words_and_nothing_else() -> None:
    plan = parse_numbered("1. make door\n2. get 2 plank, 1 nail\n4. dance after 1, 2\n5. put cup in sink after 4")
    other = paraphrased(plan)
    assert [s.description for s in other.steps] == ["craft door", "fetch 2 plank, 1 nail", "dance", "place cup in sink"]
    assert [(s.id, s.after) for s in other.steps] == [(s.id, s.after) for s in plan.steps]


# -- agents that are known ---------------------------------------------------------------------


class Secret:
    """Say the word of the task, which its plan tells and its observation does not; knows an oracle."""

    def __init__(self, task: Task) -> None:
        self.word, self.said = f"word{task.params['n']}", ""

    def reset(self, task: Task) -> str:
        return f"task {task.params['n']}"

    def step(self, action: str) -> StepResult:
        self.said = action
        return StepResult("over", float(action == self.word), terminated=True)

    def state_key(self) -> Hashable:
        return self.said

    def close(self) -> None: ...

    def oracle_plan(self) -> Plan:
        return parse_numbered(f"1. make {self.word}")

    def oracle_action(self, step: str | None) -> str:
        return self.word


TASKS = [Task(env="secret", params={"n": n}) for n in range(4)]


def agent(knows: Sequence[int], code: str = "make") -> ScriptedModel:
    """A planner that knows some words (else it plans word9), and an executor that reads plans written ``code word``."""

    def say(conversation: Conversation) -> str:
        asked = conversation.segments[-1].text
        if conversation.role == "planner":
            n = int(asked.split()[-1])
            return f"1. {code} word{n if n in knows else 9}"
        step = asked.partition("1. ")[2]
        return step.removeprefix(f"{code} ").split()[0] if step.startswith(code) else "nothing"

    model = ScriptedModel(say)
    model.prompts = BRIEF
    return model


def test_reliance_of_an_executor_that_does_what_the_plan_says() -> None:
    results = reliance(Sampler(agent(knows=[0, 1, 2]), Secret, GREEDY), TASKS)
    assert list(results) == list(CONDITIONS)
    assert {name: result.success for name, result in results.items()} == {
        "own": 0.75, "own, fixed": 0.75, "paraphrased": 0, "swapped": 0, "none": 0, "oracle": 1, "oracle, fixed": 1,
    }  # fmt: skip
    assert [e.plans[0].plan.steps[0].description for e in results["swapped"].episodes if e.plans[0].plan] == [
        "make word1", "make word2", "make word9", "make word0",
    ]  # fmt: skip
    same = reliance(Sampler(agent(knows=[0, 1, 2]), Secret, GREEDY), TASKS, reword=lambda plan: plan)
    assert same["paraphrased"].success == 0.75


def test_roles_with_a_private_code_understand_nobody_else() -> None:
    models = [agent(range(4), code) for code in ("make", "do", "say")]
    assert [[r.success for r in row] for row in cross_play([Sampler(m, Secret, GREEDY) for m in models], TASKS)] == [
        [1, 0, 0], [0, 1, 0], [0, 0, 1],
    ]  # fmt: skip


def test_two_models_are_one_model() -> None:
    class Freed(ScriptedModel):
        freed = 0

        def release(self) -> None:
            self.freed += 1

    one, other = Freed(["1. x"]), ScriptedModel(["go"])
    both = ByRole(one, other)
    (episode,) = Sampler(both, Secret).run([Job(TASKS[0], planner=Planner(), executor=Executor(both.prompts))])
    assert [t.action for t in episode.turns] == ["go"] and one.freed == 1 and both.complete([]) == []
    assert both.prompts.name == "full"


# -- counts ------------------------------------------------------------------------------------


def episode(*records: PlanRecord, turns: Sequence[Turn]) -> Episode:
    return Episode(TASKS[0], "", plans=list(records), turns=list(turns))


def turn(i: int, verdict: Verdict | None, action: str = "x", done: tuple[int, ...] = ()) -> Turn:
    return Turn(i, action, "y", 0.0, False, verdict, done=done)


def test_deviations_by_hand() -> None:
    plan = parse_numbered("7. a\n3. b after 7")
    after = parse_numbered("3. b\n4. c")
    look = ReplanReason(kind=ReplanKind.SCHEDULED)
    played = episode(
        PlanRecord(0, plan),
        PlanRecord(2, plan, look, kept=True),
        PlanRecord(4, after, look),
        turns=[turn(0, EARLY), turn(1, ON, done=(7,)), turn(2, OFF), turn(3, ON, done=(3,)), turn(4, OFF),
               turn(5, ON, done=(4,)), turn(6, OFF)],
    )  # fmt: skip
    # before step 1 was done: premature, on plan; then step 2: off plan, on plan. Step 3 stays done in the new plan,
    # so its second step's turn has come: off plan, on plan; then nothing is left.
    assert deviations([played]) == {(1, EARLY): 1, (1, ON): 1, (2, OFF): 2, (2, ON): 2, (USED_UP, OFF): 1}
    assert deviations([episode(PlanRecord(0, None), turns=[turn(0, None)])]) == {}


def test_overlap_by_hand() -> None:
    plan = parse_numbered("1. get 2 log\n2. make plank")
    played = episode(PlanRecord(0, plan), turns=[turn(0, ON, "get 2 log"), turn(1, ON, "craft plank using log")])
    assert overlap(played) == pytest.approx((1 + 1 / 4) / 2)
    assert overlap(episode(PlanRecord(0, None), turns=[turn(0, None)])) is None


def test_costs_by_hand() -> None:
    def talk(read: int, written: int) -> Conversation:
        conversation = Conversation("planner")
        conversation.ask("x", 0)
        conversation.answer("y", "plan", 0, prompt_ids=range(read), ids=range(written))
        return conversation

    played = episode(turns=[turn(0, None), turn(1, None)])
    played.conversations["planner"], played.past = talk(5, 2), [talk(10, 1)]
    played.candidates = [Candidate(None, conversations=[talk(100, 20)], turns=3)]
    assert vars(cost(played)) == {"calls": 3, "read": 115, "written": 23, "turns": 5}


def test_judged_is_the_judges_mean_of_the_first_plan() -> None:
    task = Task(env="crafting", params={"recipes": ["craft a using 1 x", "craft b using 1 a"], "goal": "b"})
    played = [
        Episode(task, "", plans=[PlanRecord(0, parse_numbered(text) if text else None)])
        for text in ("1. make a\n2. make b", "1. make b", "")
    ]
    # the second covers 1 of 2 subgoals and none in order: 1 + 4 / 4 = 2; mean with 5 and 5: 4
    assert judged(played, make_env) == pytest.approx([5, 4, 1])
    assert judged([episode(turns=[])], Secret) == [None]


# -- the proxy ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def logged() -> tuple[LocalModel, list[Episode]]:
    """Four episodes of a model that nothing has taught, under the oracle's plans."""
    rng = random.Random(3)
    tasks = [train_mix("crafting")(rng) for _ in range(4)]
    model = random_model(seed=5, window=512)
    jobs = [Job(task, OraclePlanner(), Executor(BRIEF), i) for i, task in enumerate(tasks)]
    return model, Sampler(model, make_env, Decoding(1.0, 8, 8), limits=Limits(turns=3)).run(jobs)


def test_a_conversation_is_rebuilt_token_by_token(logged: tuple[LocalModel, list[Episode]]) -> None:
    model, episodes = logged
    codec = model.specs["executor"].codec
    for played in episodes:
        own, known = played.plans[0].plan, played.conversations["executor"]
        assert own is not None
        rebuilt = with_plan(played, own, BRIEF, codec)
        assert rebuilt.ids() == known.ids()
        other = with_plan(played, parse_numbered("1. make bread"), BRIEF, codec)
        assert "1. make bread" in other.segments[1].text and other.ids() != known.ids()
        assert [s.ids for s in other.segments if s.author == "assistant"] == [
            s.ids for s in known.segments if s.author == "assistant"
        ]


def test_the_proxy_is_the_divergence_by_hand(logged: tuple[LocalModel, list[Episode]]) -> None:
    model, episodes = logged
    found = plan_kl(model, episodes[:2])
    assert found is not None and found > 0
    plans = [e.plans[0].plan for e in episodes[:2]]
    total, tokens = 0.0, 0
    with torch.no_grad(), model.weights.acting_as("executor") as network:
        for played, own, theirs in zip(episodes, plans, plans[::-1], strict=False):
            rows = [with_plan(played, p, BRIEF, model.specs["executor"].codec) for p in (own, theirs) if p]
            logps = []
            for row in rows:
                where = [
                    i for i, (own_word, _) in enumerate(
                        (s.author == "assistant", t) for s in row.segments for t in s.ids
                    ) if own_word
                ]  # fmt: skip
                logits = network(input_ids=torch.tensor([row.ids()])).logits[0].float()
                logps.append(torch.log_softmax(logits, -1)[[i - 1 for i in where]])
            total += float((logps[0].exp() * (logps[0] - logps[1])).sum())
            tokens += len(logps[0])
    assert found == pytest.approx(total / tokens, rel=1e-4)


def test_without_a_plan_to_swap_there_is_no_proxy(logged: tuple[LocalModel, list[Episode]]) -> None:
    model, episodes = logged
    assert plan_kl(model, episodes[:1]) is None
    assert plan_kl(model, []) is None
    unread = episodes[:2]
    blind = random_model(seed=5, window=512)
    blind.prompts = replace(BRIEF, act=lambda e: e.turns[-1].observation if e.turns else e.observation)
    assert plan_kl(blind, unread) == pytest.approx(0, abs=1e-7)
