"""The local model: what is recorded is what was sampled, whatever the batch or the adapters did."""

import math
import random

import numpy as np
import pytest
import torch
from doubles import Letters, letters, random_model
from talks import TOLERANCE, logits, one_row, rescored, say, tokens

from hiplan.coordination import Limits
from hiplan.envs import make_env, train_mix
from hiplan.errors import ConfigError
from hiplan.executors import Executor
from hiplan.model import Request
from hiplan.models.local import LocalModel, draw
from hiplan.plan import Plan, PlanStep
from hiplan.planners import FixedPlanner, Planner
from hiplan.prompts import BRIEF
from hiplan.sampler import Job, Sampler
from hiplan.task import StepResult
from hiplan.trace import ROLES, Conversation, Episode, Role, StopReason
from hiplan.training.batch import Row, batches, rows_of, token_logprobs


@pytest.fixture(scope="module")
def tiny() -> LocalModel:
    """tiny-v1 with noise on the adapters, so that the two roles differ from each other and from the base."""
    model = LocalModel.load("tiny-v1")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for role in ROLES:
            for parameter in model.weights.parameters(role).values():
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture(scope="module")
def episodes(tiny: LocalModel) -> list[Episode]:
    rng, mix = random.Random(0), train_mix()
    jobs = [Job(mix(rng), Planner(tiny.prompts), Executor(tiny.prompts), seed) for seed in range(12)]
    return Sampler(tiny, make_env, tokens(48), limits=Limits(turns=8)).run(jobs)


# -- what is recorded is what was sampled ------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_scoring_an_episode_again_gives_the_recorded_log_probabilities(
    tiny: LocalModel, episodes: list[Episode], role: Role
) -> None:
    assert not any(e.error for e in episodes)
    rows = [row for e in episodes for row in rows_of(e, role)]
    assert max(sum(row.trained) for row in rows) > 20
    assert max(len(e.plans) for e in episodes) > 1  # some planner rows hold revisions
    assert rescored(tiny, role, rows) < TOLERANCE
    other = "planner" if role == "executor" else "executor"
    assert rescored(tiny, other, rows) > 0.1  # the test would notice the wrong adapter


@pytest.mark.parametrize("role", ROLES)
def test_an_episodes_tokens_are_the_templates_and_decode_to_its_texts(
    tiny: LocalModel, episodes: list[Episode], role: Role
) -> None:
    for episode in episodes:
        segments = episode.conversations[role].segments
        if any(s.finish not in ("", "stop") for s in segments):
            continue
        messages = [{"role": s.author, "content": s.text} for s in segments]
        sampled = [s for s in segments if s.author == "assistant"]
        assert all(
            tiny.specs["executor"].codec.read(s.ids).text == s.text and len(s.ids) == len(s.logprobs) for s in sampled
        )
        ids = episode.conversations[role].ids()
        rendered = tiny.specs["executor"].tokenizer.apply_chat_template(messages, tokenize=False)
        assert tiny.specs["executor"].tokenizer.decode(ids, skip_special_tokens=False) == rendered
        prompts = [i for s in segments if s.author != "assistant" for i in s.ids]
        assert prompts.count(tiny.specs["executor"].codec.end_id) == len(segments) - len(sampled)


def test_an_answer_does_not_depend_on_the_batch_it_was_sampled_in(tiny: LocalModel) -> None:
    def requests() -> list[Request]:
        out = []
        for seed, (text, length) in enumerate([("a", 9), ("make plank " * 20, 30), ("get 2 log", 1), ("", 14)]):
            conversation = Conversation("executor")
            conversation.ask("executor", 0, author="system")
            conversation.ask(text, 0)
            out.append(Request(conversation, tokens(length), seed))
        return out

    alone = [tiny.complete([request])[0] for request in requests()]
    together = tiny.complete(requests())
    backwards = tiny.complete(requests()[::-1])[::-1]
    for one, others in zip(alone, zip(together, backwards, strict=True), strict=True):
        for other in others:
            assert (one.ids, one.text, one.finish, one.prompt_ids) == (
                other.ids,
                other.text,
                other.finish,
                other.prompt_ids,
            )
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=TOLERANCE)
    assert len({c.finish for c in alone}) == 2  # rows ended both ways, at different steps


# -- how it is sampled -------------------------------------------------------------------------


def test_seeds_decide_and_greedy_takes_the_most_likely() -> None:
    model = random_model()

    def ids(temperature: float, seed: int) -> tuple[int, ...]:
        return say(model, Conversation("planner"), "hello", seed, tokens(12, temperature)).ids

    assert ids(1.0, 1) == ids(1.0, 1) != ids(1.0, 2)
    assert ids(0.0, 1) == ids(0.0, 2)
    done = say(model, Conversation("planner"), "hello", 0, tokens(12, 0.0))
    whole = logits(model.weights.merged("planner"), [*done.prompt_ids, *done.ids])
    assert whole[0, len(done.prompt_ids) - 1 : -1].argmax(-1).tolist() == list(done.ids)
    assert rescored(model, "planner", [one_row(done)]) < TOLERANCE  # at temperature 1


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 2.0])
def test_log_probabilities_are_of_the_distribution_that_was_sampled(temperature: float) -> None:
    model = random_model(adapters=0.1)
    done = say(model, Conversation("planner"), "hello", 3, tokens(20, temperature))
    assert rescored(model, "planner", [one_row(done)], temperature) < TOLERANCE


def test_drawing_inverts_the_distribution_function() -> None:
    share = torch.tensor([0.0, 0.5, 0.0, 0.2, 0.3, 0.0])
    grid = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    token, logprob = draw(share.log().expand(1000, -1), torch.ones(1000), grid)
    assert token.bincount(minlength=6).tolist() == [0, 500, 0, 200, 300, 0]
    torch.testing.assert_close(logprob, share[token].log())
    edges = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)  # what a 53-bit generator can give at the ends
    assert draw(share.log().expand(2, -1), torch.ones(2), edges)[0].tolist() == [1, 4]
    colder, _ = draw(share.log().expand(1000, -1), torch.full((1000,), 0.5), grid)
    squares = np.array([0.25, 0.04, 0.09]) / 0.38
    np.testing.assert_allclose(colder.bincount(minlength=6)[[1, 3, 4]] / 1000, squares, atol=0.001)


# -- ends --------------------------------------------------------------------------------------


def test_a_cut_answer_is_ended_by_an_untrained_token_of_the_next_prompt(tiny: LocalModel) -> None:
    conversation = Conversation("executor")
    conversation.ask("executor", 0, author="system")
    cut = say(tiny, conversation, "Goal: 1 plank.\nRecipes:\n1 plank: 2 log\nNo plan.", 0, tokens(1, 0.0))
    assert (cut.finish, len(cut.ids)) == ("length", 1)
    whole = say(tiny, conversation, "ok", 1, tokens(60, 0.0))
    assert whole.finish == "stop" and whole.ids[-1] == tiny.specs["executor"].codec.end_id
    after = say(tiny, conversation, "ok", 2, tokens(2))
    assert whole.prompt_ids[0] == tiny.specs["executor"].codec.end_id
    assert after.prompt_ids == whole.prompt_ids[1:]  # an answer that ended itself gets no second end
    (row,) = Row.of(conversation)
    end = len(cut.prompt_ids) + 1
    assert row.ids[end] == tiny.specs["executor"].codec.end_id and not row.trained[end] and row.trained[end - 1]
    assert sum(row.trained) == sum(len(c.ids) for c in (cut, whole, after))


class Corridor(Letters):
    """Says much at every turn, and is never done."""

    def step(self, action: str) -> StepResult:
        self.said.append(action)
        return StepResult(f"door {len(self.said)} of very many doors, each of them closed", 0.0, terminated=False)


def test_a_full_window_begins_the_conversation_anew() -> None:
    model = random_model(window=128, adapters=0.1)
    plan = FixedPlanner(Plan(goal="say", steps=(PlanStep(id=1, description="say a"),)))
    jobs = [Job(letters(3), plan, Executor(BRIEF), seed) for seed in range(3)]
    limits = Limits(turns=14, idle=20)
    for episode in Sampler(model, Corridor, tokens(6), limits=limits).run(jobs):
        assert len(episode.turns) == 14 and episode.stop is StopReason.TURN_LIMIT
        first, *later = episode.exchanges("executor")
        assert later and first is episode.past[0] and first.segments[-1].finish == "window"
        system, asked = later[0].segments[:2]
        assert (system.author, system.text) == ("system", BRIEF.executor_system)
        turn = asked.turn
        assert asked.text.startswith("say 3\nPlan:\n1. say a\n> ")  # the task, the plan in force, the last turns
        assert asked.text.endswith(f"door {turn} of very many doors, each of them closed")
        rows = rows_of(episode, "executor")
        assert len(rows) == 1 + len(later) and all(len(row.ids) <= 128 for row in rows)
        assert sum(sum(row.trained) for row in rows) == sum(
            len(s.ids) for c in episode.exchanges("executor") for s in c.segments if s.author == "assistant"
        )
        assert Episode.from_json(episode.to_json()).to_json() == episode.to_json()
        with torch.no_grad(), model.weights.acting_as("executor") as active:
            for batch in batches(rows, 1000, torch.device("cpu")):
                gap = (token_logprobs(active, batch) - batch.logp_old)[batch.mask].abs().max()
                assert gap < TOLERANCE


def test_a_full_window_ends_the_answer_and_then_the_conversation() -> None:
    model = random_model(window=48)
    long, short = Conversation("executor"), Conversation("executor")
    filled = say(model, long, "a b c d", 0, tokens(500))
    assert filled.finish in ("length", "stop") and len(long.ids()) <= 48
    while filled.finish != "window":
        assert len(long.ids()) <= 48
        filled = say(model, long, "more", 1, tokens(500))
    assert filled.ids == () and filled.text == "" and len(filled.prompt_ids) > 0
    long.ask("more", 0)
    short.ask("a b c d", 0)
    requests = [Request(long, tokens(5), 0), Request(short, tokens(5), 0)]
    beside = model.complete(requests)  # a sibling in the batch is not disturbed
    assert [c.finish for c in beside] == ["window", "length"]
    fresh = Conversation("executor")
    assert beside[1].ids == say(model, fresh, "a b c d", 0, tokens(5)).ids
    assert model.complete([]) == []


def test_models_that_are_not_there_are_named() -> None:
    with pytest.raises(ConfigError, match="no model at 'nowhere'"):
        LocalModel.load("nowhere")


def test_tiny_v1_answers_in_its_own_dialect(episodes: list[Episode]) -> None:
    spoken = [math.exp(lp) for e in episodes for c in e.conversations.values() for s in c.segments for lp in s.logprobs]
    assert np.median(spoken) > 0.5  # a model that knows the language is sure of most tokens
