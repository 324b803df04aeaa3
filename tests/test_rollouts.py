"""The batched driver: episodes are independent of each other and share model calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from episodes import CUP, DOOR, PLANK, Watched

from hiplan.coordination import Limits
from hiplan.envs import make_env
from hiplan.executors import Executor
from hiplan.model import Completion, Decoding, Model, Request, ScriptedModel, derive_seed
from hiplan.planners import NoPlanner, Planner
from hiplan.prompts import BRIEF, FULL
from hiplan.sampler import Job, Sampler
from hiplan.trace import Conversation, Episode, StopReason


def test_episodes_do_not_depend_on_their_siblings() -> None:
    def jobs() -> list[Job]:
        return [Job(task, Planner(BRIEF), Executor(BRIEF), seed) for seed, task in enumerate([DOOR, CUP, PLANK, DOOR])]

    together = Sampler(Watched(), make_env).run(jobs())
    alone = [Sampler(Watched(), make_env).run([job])[0] for job in jobs()]
    assert [e.to_json() for e in together] == [e.to_json() for e in alone]
    assert [e.task for e in together] == [DOOR, CUP, PLANK, DOOR]
    assert {e.stop for e in together} == {StopReason.TERMINATED, StopReason.STUCK}


def test_waiting_episodes_share_model_calls() -> None:
    model = Watched()
    jobs = [Job(DOOR, Planner(BRIEF), Executor(BRIEF), seed) for seed in range(5)]
    jobs[4] = Job(DOOR, Planner(BRIEF), Executor(BRIEF), 4, Decoding(0.0, 8))
    Sampler(model, make_env, Decoding(0.7, 16)).run(jobs)
    assert [(call[0].role, len(call)) for call in model.calls] == [
        ("planner", 5), ("executor", 5), ("planner", 5), *[("executor", 5)] * 7,
    ]  # fmt: skip
    assert [r.decoding for r in model.calls[0]] == [Decoding(0.7, 16)] * 4 + [Decoding(0.0, 8)]
    seeds = [request.seed for call in model.calls for request in call]
    assert len(set(seeds)) == len(seeds), "no two samples share a seed"
    assert seeds[:2] == [derive_seed(0, "planner", 1), derive_seed(1, "planner", 1)]


def test_conversations_only_grow() -> None:
    seen: dict[int, list[Any]] = {}

    def say(conversation: Conversation) -> str:
        before = seen.get(id(conversation), [])
        assert conversation.segments[: len(before)] == before
        seen[id(conversation)] = list(conversation.segments)
        return Watched.say(conversation)

    Sampler(ScriptedModel(say), make_env).run([Job(DOOR, Planner(FULL), Executor(FULL))])


def test_sampled_tokens_are_kept_as_they_were() -> None:
    class Tokens(Model):
        def complete(self, requests: Sequence[Request]) -> list[Completion]:
            return [
                Completion("inventory", ids=(7, 8), logprobs=(-0.5, -0.25), prompt_ids=(1, 2, 3), finish="length")
                for _ in requests
            ]

    (episode,) = Sampler(Tokens(), make_env, limits=Limits(turns=1)).run([Job(DOOR, NoPlanner(), Executor(BRIEF))])
    conversation = Episode.from_json(episode.to_json()).conversations["executor"]
    assert conversation.ids() == [1, 2, 3, 7, 8]
    last = conversation.segments[-1]
    assert (last.logprobs, last.finish, last.trained, last.kind) == ((-0.5, -0.25), "length", True, "action")
    assert not conversation.pending()
