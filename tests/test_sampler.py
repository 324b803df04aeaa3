"""The sampler: environments are built once, broken promises are faults of one episode, and what training is told."""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from doubles import Letters, letters, random_model

from hiplan import Agent, Sampler, StepResult, Task, TaskSuite
from hiplan.coordination import Limits, Submission, llm_judge
from hiplan.errors import EnvironmentFault, UserError
from hiplan.executors import Executor, OracleExecutor, ScriptedExecutor
from hiplan.model import Completion, Decoding, Model, Request, ScriptedModel
from hiplan.plan import Plan, PlanStep
from hiplan.planners import NoPlanner, OraclePlanner, Planner
from hiplan.sampler import Job
from hiplan.trace import Episode, StopReason
from hiplan.training import ProgressiveTrainer, Stage, TrainConfig
from hiplan.training.batch import Row, batches, last_observation, rows_of
from hiplan.training.collect import Rollout
from hiplan.training.decisions import decisions_of, rewards_per_answer


def saying(*actions: str) -> ScriptedExecutor:
    return ScriptedExecutor(lambda episode, ready: actions[len(episode.turns)])


# -- environments ------------------------------------------------------------------------------


def test_an_environment_is_built_once_and_started_once_per_episode() -> None:
    calls: list[str] = []

    class Counted(Letters):
        def __init__(self, task: Task) -> None:
            calls.append("built")
            super().__init__(task)

        def reset(self, task: Task) -> str:
            calls.append("reset")
            return super().reset(task)

    jobs = [Job(letters(2), OraclePlanner(), OracleExecutor())] * 3
    assert all(episode.success for episode in Sampler(ScriptedModel([]), Counted).run(jobs))
    assert calls.count("built") == calls.count("reset") == 3


class Odd(Letters):
    """Its answers are what ``result`` makes of them."""

    result: Callable[[StepResult], Any]

    def step(self, action: str) -> Any:
        return type(self).result(super().step(action))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("yes", "step('a') returned a str; expected a hiplan.StepResult"),
        (None, "step('a') returned a NoneType; expected a hiplan.StepResult"),
        (StepResult("", refused=None), "step('a') returned refused=None; expected True or False"),  # type: ignore[arg-type]
        (StepResult("", refused=b"x"), "step('a') returned refused=b'x'"),  # type: ignore[arg-type]
        (StepResult("", terminated="no"), "step('a') returned terminated='no'"),  # type: ignore[arg-type]
        (StepResult("", success={}), "step('a') returned success={}"),  # type: ignore[arg-type]
        (StepResult("", reward="1"), "step('a') returned the reward '1'; expected a finite number"),  # type: ignore[arg-type]
        (StepResult("", reward=math.nan), "step('a') returned the reward nan"),
        (StepResult(7), "step('a') returned the observation 7; expected a str"),  # type: ignore[arg-type]
    ],
    ids=str,
)
def test_an_answer_that_is_none_is_a_fault_of_that_episode(answer: Any, said: str) -> None:
    class Wrong(Odd):
        result = staticmethod(lambda result: answer)

    build = {True: Letters, False: Wrong}
    jobs = [Job(letters(2, sound=sound), NoPlanner(), saying("a", "b")) for sound in (True, False)]
    sound, wrong = Sampler(ScriptedModel([]), lambda task: build[bool(task.params["sound"])](task)).run(jobs)
    assert sound.success
    assert wrong.stop is StopReason.FAULT and said in wrong.error


def test_numbers_for_flags_and_rewards_are_kept_as_what_they_mean() -> None:
    class Counting(Odd):
        result = staticmethod(lambda result: StepResult("", True, 1, 0, 3, 1))

    (played,) = Sampler(ScriptedModel([]), Counting).run([Job(letters(2), NoPlanner(), saying("a"))])
    assert Episode.from_json(played.to_json()) == played
    (turn,) = played.turns
    assert (turn.reward, turn.refused, turn.success) == (1.0, True, True) and isinstance(turn.refused, bool)


def test_a_state_without_text_is_a_fault_of_that_episode() -> None:
    class Unspeakable:
        def __repr__(self) -> str:
            raise ValueError("no words")

    class Secret(Letters):
        def state_key(self) -> Any:
            return Unspeakable()

    (episode,) = Sampler(ScriptedModel([]), Secret).run([Job(letters(), NoPlanner(), saying("a"))])
    assert episode.error == "EnvironmentFault: state_key raised ValueError: no words"


def test_success_is_what_the_environment_says_whatever_its_rewards_are() -> None:
    """Cliff walking costs 1 a step; the goal is reached with a total of -2."""

    def cliff(success: bool | None) -> type[Odd]:
        class Cliff(Odd):
            result = staticmethod(
                lambda r: StepResult(r.observation, -1.0, r.terminated, success=success if r.terminated else None)
            )

        return Cliff

    for success, expected in ((True, True), (False, False), (None, False)):
        (episode,) = Sampler(ScriptedModel([]), cliff(success)).run([Job(letters(2), NoPlanner(), saying("a", "b"))])
        assert (episode.reward, episode.success) == (-2.0, expected)
        assert Episode.from_json(episode.to_json()).success == expected


# -- models ------------------------------------------------------------------------------------


def test_what_is_no_model_is_refused_at_once() -> None:
    class Mute:
        def complete(self, requests: Sequence[Request]) -> list[Completion]:
            return []

    with pytest.raises(
        UserError, match=r"'Mute' is not a model; expected a class with complete\(requests\), prompts and release"
    ):
        Sampler(Mute(), Letters)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "returned a list of 0; expected a list of 1 hiplan"),
        (None, "returned None;"),
        ("a", "returned 'a'"),
        (["a"], "returned 'a'"),
        ([Completion(7)], "returned Completion"),  # type: ignore[arg-type]
        ([Completion("a", (1,), (None,))], r"returned Completion.* \(logprobs.0: Input should be a valid number"),  # type: ignore[arg-type]
        ([Completion("a", ("1",))], r"returned Completion.* \(ids.0: Input should be a valid integer"),  # type: ignore[arg-type]
        ([Completion("a", finish="odd")], r"returned Comp.* \(finish: Input should be 'stop', 'length' or 'window'"),  # type: ignore[arg-type]
        ([Completion("a", reasoning=None)], r"returned Completion.* \(reasoning: "),  # type: ignore[arg-type]
    ],
    ids=str,
)  # fmt: skip
def test_completions_without_text_are_named(given: list[Any], said: str) -> None:
    class Wrong(Model):
        def complete(self, requests: Sequence[Request]) -> list[Completion]:
            return given

    with pytest.raises(UserError, match=f"Wrong.complete {said}"):
        Agent(Wrong(), make_env=Letters).run(letters())


def test_a_model_that_raises_stop_iteration_ends_no_driver_in_silence() -> None:
    class Spent(Model):
        def complete(self, requests: Sequence[Request]) -> list[Completion]:
            raise StopIteration("nothing left")

    async def follow() -> None:
        async for _ in Agent(Spent(), make_env=Letters).astream(letters()):
            pass

    job = Job(letters(), Planner(), Executor())
    for play in (
        lambda: Agent(Spent(), make_env=Letters).run(letters()),
        lambda: asyncio.run(asyncio.wait_for(follow(), 20)),
        lambda: Sampler(Spent(), Letters).run([job]),
        lambda: llm_judge(Spent())([Submission(letters(), "", Plan(steps=(PlanStep(id=1, description="a"),)))]),
    ):
        with pytest.raises(
            UserError, match=r"Spent.complete raised StopIteration\('nothing left'\); raise an exception"
        ):
            play()


# -- ends --------------------------------------------------------------------------------------


class Stubborn(Letters):
    """Fails at its second action, and when it is closed."""

    def close(self) -> None:
        raise OSError("still in use")


def test_an_environment_that_fails_at_its_end_does_not_hide_why_the_episode_failed() -> None:
    agent = Agent(ScriptedModel([]), NoPlanner(), saying("a", "b"), make_env=Stubborn)
    stream = agent.stream(letters(2, broken=True))
    with pytest.raises(EnvironmentFault, match="the engine broke"):
        list(stream)
    assert "the engine broke" in stream.episode.error

    async def play() -> None:
        async for _ in agent.astream(letters(2, broken=True)):
            pass

    with pytest.raises(EnvironmentFault, match="the engine broke"):
        asyncio.run(play())


def test_an_environment_that_fails_at_its_end_takes_no_finished_episode_away() -> None:
    episode = Agent(ScriptedModel([]), NoPlanner(), saying("a", "b"), make_env=Stubborn).run(letters(2))
    assert episode.success and episode.error == "EnvironmentFault: close raised OSError: still in use"


# -- what training is told ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def played() -> tuple[Any, list[Rollout]]:
    """A model, and two groups of two episodes of its own, of three turns."""
    model = random_model(seed=1)
    sampler = Sampler(model, Letters, Decoding(1.0, 4, 4), limits=Limits(turns=3))
    jobs = [Job(letters(5, k=k // 2), sampler.planner, sampler.executor, seed=k) for k in range(4)]
    return model, [Rollout(episode, k // 2, True) for k, episode in enumerate(sampler.run(jobs))]


def test_rows_keep_what_the_executor_would_have_read_next(played: tuple[Any, list[Rollout]]) -> None:
    model, rollouts = played
    episode = rollouts[0].episode
    codec = model.specs["executor"].codec
    last = last_observation(episode, model.prompts, codec)
    assert codec.tokenizer.decode(last).count(episode.turns[-1].observation) == 1
    rows = rows_of(episode, "executor", last=last)
    assert [row.last for row in rows] == [()] * (len(rows) - 1) + [tuple(last)]
    (batch,) = batches(rows[-1:], 10_000, model.weights.body("executor").plain.device)
    assert batch.ids.shape[1] == len(rows[-1].ids), "it is no part of the row's own tokens"


def test_every_token_has_the_advantage_of_its_decision(played: tuple[Any, list[Rollout]]) -> None:
    episode = played[1][0].episode
    answers = episode.conversations["executor"].answers()
    (row,) = rows_of(episode, "executor", [1.0, -2.0, 3.0])
    own = [a for a, trained in zip(row.advantages, row.trained, strict=True) if trained]
    assert own == [a for a, s in zip((1.0, -2.0, 3.0), answers, strict=True) for _ in s.ids]
    assert not any(a for a, trained in zip(row.advantages, row.trained, strict=True) if not trained)
    assert Row.of(episode.conversations["executor"])[0].advantages == [0.0] * len(row.ids)


def test_a_decision_says_where_it_was_made(played: tuple[Any, list[Rollout]]) -> None:
    _, rollouts = played
    made = decisions_of(rollouts, ("planner", "executor"), lambda episode, role: 2.0)
    mine = [one for one in made if one.episode == 1 and one.role == "executor"]
    episode = rollouts[1].episode
    assert [one.turn for one in mine] == [0, 1, 2] and {one.group for one in mine} == {0}
    assert [one.state_key for one in mine] == ["", episode.turns[0].state_key, episode.turns[1].state_key]
    assert [one.reward for one in mine] == [0.0, 0.0, 2.0], "a number alone is the last decision's"
    assert [one.done for one in mine] == [one.truncated for one in mine] == [False, False, True]
    first = episode.conversations["executor"].answers()[0]
    assert mine[0].tokens == len(first.ids)
    assert mine[0].surprisal == pytest.approx(-sum(first.logprobs) / len(first.ids))
    assert {one.kind for one in made if one.role == "planner"} == {"plan"}


@pytest.mark.parametrize("given", [None, math.nan, [1.0], "a", [1.0, None, 2.0], [1.0, math.inf, 0.0]], ids=str)
def test_a_reward_that_cannot_be_used_is_named(given: Any, played: tuple[Any, list[Rollout]]) -> None:
    with pytest.raises(UserError, match=r"the reward function returned .* expected a finite number, or 3 of them"):
        rewards_per_answer(given, 3, played[1][0].episode, "executor")


def test_a_reward_may_be_one_number_per_answer(played: tuple[Any, list[Rollout]]) -> None:
    assert rewards_per_answer([1, 0.5, 0], 3, played[1][0].episode, "executor") == [1.0, 0.5, 0.0]


def test_imitating_successes_looks_at_success_and_not_at_shaped_rewards() -> None:
    """Both halves of the reward without the end of the task: worth 1, and no success."""

    class Endless(Odd):
        result = staticmethod(lambda r: StepResult(r.observation, 1.0, success=False))

    stage = Stage(name="imitate", trains=("executor",), plans="none", iterations=1, learning_rate=0.01)
    config = TrainConfig(algorithm="rejection", groups=2, group_size=2, action_tokens=2, turns=2)  # type: ignore[arg-type]
    suite = TaskSuite("letters", Endless, lambda rng: letters(2))
    trainer = ProgressiveTrainer(random_model(seed=1), suite, config=config, stages=[stage])
    trainer.train()
    (row,) = trainer.metrics.rows
    assert row["reward_executor"] == 0.0 and "loss_executor" not in row


def test_the_optimizers_settings_are_those_of_the_config() -> None:
    stage = Stage(name="one", trains=("executor",), plans="none", iterations=1)
    config = TrainConfig(stages=(stage,), groups=2, group_size=2, turns=1, betas=(0.8, 0.9), weight_decay=0.1)
    suite = TaskSuite("letters", Letters, lambda rng: letters())
    trainer = ProgressiveTrainer(random_model(seed=1), suite, config=config)
    seen: list[dict[str, Any]] = []
    trainer.on_iteration = lambda row: seen.extend(o.defaults for o in trainer.learner.optimizers.values())
    trainer.train()
    assert [(known["betas"], known["weight_decay"]) for known in seen] == [((0.8, 0.9), 0.1)]
