"""The environment protocol: tasks in, observations out; and the check every environment must pass.

An environment is built for one task at a time. An illegal or malformed action is an observation,
never an exception; an exception means that the engine itself failed and ends that episode only.

Environments may offer more, each part optional and found by ``isinstance``:
``Oracle`` (a plan and actions that reach full reward) and ``PlanAware`` (which plan step an action
serves and whether a step is done), which the coordination layer uses to measure adherence.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Protocol, runtime_checkable

from hiplan.plan import Plan, StepStatus
from hiplan.task import StepResult, Task


@runtime_checkable
class Environment(Protocol):
    """One task at a time; same task and actions give the same transcript in every process."""

    def reset(self, task: Task) -> str:
        """Start the task and return the first observation, which states the goal.

        Raises ``TaskError`` for a task that cannot be built.
        """
        ...

    def step(self, action: str) -> StepResult:
        """Carry out one action; any string is allowed."""
        ...

    def state_key(self) -> Hashable:
        """Equal for equal states of one task, whatever led there."""
        ...

    def close(self) -> None:
        """Free what the engine holds; may be called twice."""
        ...


@runtime_checkable
class Oracle(Protocol):
    """An environment that knows a way to full reward, seeing no more than the agent has seen."""

    def oracle_plan(self) -> Plan:
        """A plan for what is left of the task, from what has been seen so far."""
        ...

    def oracle_action(self, step: str | None) -> str:
        """The next action under that plan step, or under the oracle's own plan for ``None``."""
        ...


@runtime_checkable
class PlanAware(Protocol):
    """An environment that understands plan steps written in its own language."""

    def subgoals(self) -> Mapping[str, tuple[str, ...]]:
        """What has to be achieved, and for each subgoal the subgoals that must be achieved before it."""
        ...

    def subgoal_of(self, step: str) -> str | None:
        """The subgoal a step achieves; ``None`` for a step that makes no sense here."""
        ...

    def step_status(self, step: str) -> StepStatus:
        """Whether the step is done, has failed (cannot succeed as written), or is open."""
        ...

    def serves(self, step: str, action: str) -> bool:
        """Whether the action works towards the step."""
        ...


EnvFactory = Callable[[Task], Environment]


def check_environment(make: EnvFactory, task: Task, actions: list[str], max_steps: int = 200) -> None:
    """The conformance check: raises ``AssertionError`` that says which promise was broken.

    Plays ``actions`` twice and compares transcripts and state keys, throws malformed actions at it, and,
    where there is an oracle, plays it to full reward.
    """

    def play(extra: list[str]) -> list[tuple[str, float, bool, Hashable]]:
        env = make(task)
        try:
            rows: list[tuple[str, float, bool, Hashable]] = [(env.reset(task), 0.0, False, env.state_key())]
            for action in extra:
                result = env.step(action)
                assert isinstance(result.observation, str), f"step({action!r}) gave a non-text observation"
                hash(env.state_key())
                rows.append((result.observation, result.reward, result.terminated, env.state_key()))
                if result.terminated or result.truncated:
                    break
            return rows
        finally:
            env.close()
            env.close()

    assert play(actions) == play(actions), "the same task and actions gave two different transcripts"
    odd = ["", " ", "\n", "\x00", "no such action", "get", "go to", "((((", "a" * 10_000, "<|end|>", "1. 2. 3."]
    env = make(task)
    env.reset(task)
    for action in odd:
        before = env.state_key()
        result = env.step(action)
        assert result.refused, f"the malformed action {action[:20]!r} was not refused"
        assert env.state_key() == before, f"the refused action {action[:20]!r} changed the state"
        assert result.reward == 0.0, f"the malformed action {action[:20]!r} was rewarded"
    env.close()
    if isinstance(env, Oracle):
        env = make(task)
        env.reset(task)
        total = 0.0
        for _ in range(max_steps):
            assert isinstance(env, Oracle)
            result = env.step(env.oracle_action(None))
            total += result.reward
            if result.terminated:
                break
        assert total == 1.0, f"the oracle's own play earned {total}, not 1.0"
        env.close()
