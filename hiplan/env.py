"""The environment protocol, two optional extensions of it, and a conformance check for any environment.

An environment runs one task at a time. It answers an illegal or malformed action with an observation, never with an
exception; an exception means that the environment itself failed, and ends that episode only.

Both extensions are detected with ``isinstance``. An ``Oracle`` provides a plan and actions that reach full reward. A
``PlanAware`` environment tells which plan step an action serves and which steps are done; the coordination layer uses
it to measure adherence.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Protocol, runtime_checkable

from hiplan.plan import Plan, StepStatus
from hiplan.task import StepResult, Task


@runtime_checkable
class Environment(Protocol):
    """Runs one task at a time; the same task and actions give the same transcript in every process."""

    def reset(self, task: Task) -> str:
        """Start the task and return the first observation, which states the goal.

        Raises ``TaskError`` if the task cannot be built.
        """
        ...

    def step(self, action: str) -> StepResult:
        """Execute one action; accepts any string."""
        ...

    def state_key(self) -> Hashable:
        """A key that is equal for equal states of one task, regardless of the history."""
        ...

    def close(self) -> None:
        """Free all resources; may be called twice."""
        ...


@runtime_checkable
class Oracle(Protocol):
    """An environment that can plan and act to full reward from what the agent has observed so far."""

    def oracle_plan(self) -> Plan:
        """A plan for the rest of the task, from the observations so far."""
        ...

    def oracle_action(self, step: str | None) -> str:
        """The next action for a plan step, or for the oracle's own plan if ``step`` is ``None``."""
        ...


@runtime_checkable
class PlanAware(Protocol):
    """An environment that understands plan steps written in its own vocabulary."""

    def subgoals(self) -> Mapping[str, tuple[str, ...]]:
        """The subgoals of the task; each maps to the subgoals that must be achieved before it."""
        ...

    def subgoal_of(self, step: str) -> str | None:
        """The subgoal that a step achieves; ``None`` for a step that has no meaning in this task."""
        ...

    def step_status(self, step: str) -> StepStatus:
        """Whether the step is done, has failed (cannot succeed as written), or is open."""
        ...

    def serves(self, step: str, action: str) -> bool:
        """Whether the action works towards the step."""
        ...


EnvFactory = Callable[[Task], Environment]


def check_environment(make: EnvFactory, task: Task, actions: list[str], max_steps: int = 200) -> None:
    """Check that an environment conforms to the protocol. Raises ``AssertionError`` with the requirement it violates.

    Plays ``actions`` twice and compares transcripts and state keys, then sends malformed actions. If the environment is
    an ``Oracle``, also plays the oracle's actions, for at most ``max_steps`` turns, and requires full reward.
    """

    def play(extra: list[str]) -> list[tuple[str, float, bool, Hashable]]:
        env = make(task)
        try:
            rows: list[tuple[str, float, bool, Hashable]] = [(env.reset(task), 0.0, False, env.state_key())]
            for action in extra:
                result = env.step(action)
                assert isinstance(result.observation, str), f"step({action!r}) returned an observation that is not text"
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
        assert total == 1.0, f"the oracle's actions earned a total reward of {total}, expected 1.0"
        env.close()
