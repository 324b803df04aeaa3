"""What a training run is: stages, and what they share. Pydantic, because it comes from files and options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hiplan.coordination.matching import MatcherName
from hiplan.coordination.replan import ReplanName
from hiplan.model import Decoding
from hiplan.trace import Role
from hiplan.training.rewards import RewardWeights

PlanSourceName = Literal["self", "oracle", "hindsight", "filtered", "file", "none"]


class Stage(BaseModel):
    """One stage of progressive training.

    ``trains``: the roles that learn; the others are frozen. ``plans``: where the plans come from: the planner itself
    (``self``), the environment's oracle, the ends of its own successful episodes (``hindsight``), its own plans that
    the judge passes (``filtered``), a file, or ``none`` (ReAct). ``no_plan``: share of groups that run without a
    plan while the executor learns. ``kl``: weight of the k3 anchor to the stage's start; with joint weights it
    holds the frozen role too. ``env_steps``: end the stage once the whole run has taken so many.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    trains: tuple[Role, ...]
    plans: PlanSourceName = "self"
    iterations: int = Field(ge=0)
    learning_rate: float = Field(default=4e-4, gt=0)
    rewards: RewardWeights = RewardWeights()
    no_plan: float = Field(default=0.0, ge=0, le=1)
    kl: float = Field(default=0.0, ge=0)
    env_steps: int | None = None


EXECUTOR_STAGE = Stage(
    name="executor",
    trains=("executor",),
    plans="oracle",
    iterations=8,
    learning_rate=1e-3,
    rewards=RewardWeights(adherence=0.2),
    no_plan=0.15,
)
PLANNER_STAGE = Stage(
    name="planner", trains=("planner",), iterations=12, learning_rate=2e-3, rewards=RewardWeights(quality=0.2)
)
JOINT_STAGE = Stage(name="joint", trains=("planner", "executor"), iterations=20, learning_rate=1e-3, no_plan=0.1)


ALGORITHMS: Mapping[str, Mapping[str, Any]] = {  # those with a name
    "grpo": {},
    "rejection": {"reward": "success", "credit": "successes", "loss": "likelihood", "drop_zero": True},
}


class AlgorithmConfig(BaseModel):
    """The six functions of a training algorithm (``hiplan.training.Algorithm``) by name.

    Each is one of hiplan's, ``module:function`` or ``file.py:function``. ``collect``: ``refill`` (up to ``resample``
    times for groups whose episodes all have the same rewards) or ``once``. ``reward``: ``stage`` (the stage's
    ``rewards``) or ``success``. ``credit``: ``grpo``, ``loo`` or ``successes``. ``modulators``: applied to the
    advantages in order. ``loss``: ``clip`` (PPO-clip) or ``likelihood``. ``schedule``: ``in_turn``. ``drop_zero``:
    leave decisions with advantage 0 out of updates. In place of a mapping, ``grpo`` and ``rejection``
    (rejection-sampling fine-tuning) name a whole algorithm.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    collect: str = "refill"
    reward: str = "stage"
    credit: str = "grpo"
    modulators: tuple[str, ...] = ()
    loss: str = "clip"
    schedule: str = "in_turn"
    drop_zero: bool = False

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value not in ALGORITHMS:
            raise ValueError(f"unknown algorithm {value!r}; expected one of {', '.join(ALGORITHMS)}, or a mapping")
        return ALGORITHMS[value]


class TrainConfig(BaseModel):
    """What all stages share.

    ``groups`` x ``group_size`` episodes an iteration; ``resample``: times to refill groups whose episodes all agree.
    ``updates``: optimizer steps an iteration. ``algorithm``: the functions that collect, reward, credit and update.
    ``clip_low``, ``clip_high``, ``dual_clip``: PPO-clip. ``batch_tokens``: padded tokens in one forward pass.
    ``betas``, ``weight_decay``: AdamW's.
    ``plan_tokens``, ``action_tokens``: the most of one answer. ``turns``: actions per episode in training.
    ``replan``: when the planner is asked again, in training and where a run measures; ``every_turn`` is AdaPlan as in
    the paper, ``every_turn_told`` names a failed step as well (``hiplan.coordination.replan.REPLAN_POLICIES``).
    ``matcher``: which steps an action serves (``hiplan.coordination.matching.MATCHERS``).
    ``plan_file``: for stages whose plans come from a file. ``warm_start``: oracle demonstrations to imitate before the
    first stage. ``gradient_checkpointing``: less memory in updates for a third more time.
    ``plan_kl``: episodes of each iteration on which it is measured how much the executor's words depend on the plan.
    ``shard``: split all weights and optimizer states over the processes (FSDP2); they then play all episodes in step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stages: tuple[Stage, ...] = (EXECUTOR_STAGE, PLANNER_STAGE, JOINT_STAGE)
    groups: int = Field(default=8, ge=1)
    group_size: int = Field(default=8, ge=2)
    resample: int = Field(default=0, ge=0)
    updates: int = Field(default=4, ge=1)
    algorithm: AlgorithmConfig = AlgorithmConfig()
    clip_low: float = Field(default=0.2, gt=0)
    clip_high: float = Field(default=0.28, gt=0)
    dual_clip: float | None = 3.0
    temperature: float = Field(default=1.0, gt=0)
    plan_tokens: int = Field(default=128, ge=1)
    action_tokens: int = Field(default=32, ge=1)
    turns: int = Field(default=20, ge=1)
    batch_tokens: int = Field(default=1800, ge=1)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.0, ge=0)
    gradient_clip: float = Field(default=1.0, gt=0)
    replan: ReplanName = "on_failure"
    matcher: MatcherName = "best_known"
    plan_file: str | None = None
    warm_start: int = Field(default=0, ge=0)
    gradient_checkpointing: bool = False
    plan_kl: int = Field(default=4, ge=0)
    shard: bool = False

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_versions(cls, value: Any) -> Any:
        """Fields as version 0.1.0 wrote them: ``revise`` for ``replan``, ``estimator`` for ``algorithm``."""
        if not isinstance(value, dict):
            return value
        known = dict(value)
        if "revise" in known:
            known.setdefault("replan", known.pop("revise"))
        if "estimator" in known:
            old = known.pop("estimator")
            known.setdefault("algorithm", "rejection" if old == "rejection" else {"credit": old})
        return known

    def decoding(self, temperature: float | None = None) -> Decoding:
        """How to sample within these limits; at the training temperature unless another is given."""
        return Decoding(self.temperature if temperature is None else temperature, self.plan_tokens, self.action_tokens)
