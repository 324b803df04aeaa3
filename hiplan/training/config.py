"""Training settings, per stage and for the whole run, as pydantic models because they come from files and options."""

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

    ``trains``: the trained roles; the others are frozen. ``plans``: the source of plans: ``self`` (the planner),
    ``oracle`` (the environment), ``hindsight`` (plans of the agent's own successful episodes), ``filtered`` (the
    planner's plans that the judge passes), ``file``, or ``none`` (ReAct). ``no_plan``: share of groups without a plan
    while the executor is trained. ``kl``: weight of the KL term (k3) to the weights at the start of the stage; with
    joint weights it also covers the frozen role. ``env_steps``: end the stage when the run has taken this many
    environment steps in total.
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

    def ended(self, iteration: int, env_steps: int) -> bool:
        """Whether the stage ends before ``iteration``, when the run has taken ``env_steps`` in total."""
        return iteration >= self.iterations or (self.env_steps is not None and env_steps >= self.env_steps)


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


ALGORITHMS: Mapping[str, Mapping[str, Any]] = {  # named algorithms
    "grpo": {},
    "rejection": {"reward": "success", "credit": "successes", "loss": "likelihood", "drop_zero": True},
}


class AlgorithmConfig(BaseModel):
    """The six functions of a training algorithm (``hiplan.training.Algorithm``) by name.

    Each is a name listed here, ``module:function``, or ``file.py:function``. ``collect``: ``refill`` (replaces groups
    without reward variance, up to ``resample`` times) or ``once``. ``reward``: ``stage`` (the stage's ``rewards``) or
    ``success``. ``credit``: ``grpo``, ``loo`` or ``successes``. ``modulators``: applied to the advantages in order.
    ``loss``: ``clip`` (PPO-clip) or ``likelihood``. ``schedule``: ``in_turn``. ``drop_zero``: leave rows without any
    advantage out of updates. Instead of a mapping, the name ``grpo`` or ``rejection`` (rejection-sampling fine-tuning)
    selects all six.
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
    """Settings shared by all stages.

    Rollouts: ``groups`` x ``group_size`` episodes per iteration; ``resample``: the most refills of groups without
    reward variance. ``temperature``: of sampling in training. ``plan_tokens``, ``action_tokens``: token limits of one
    answer. ``turns``: the most actions per training episode. ``replan``: when to ask for a revision, in training and
    evaluation (``hiplan.coordination.replan.REPLAN_POLICIES``); ``every_turn`` is AdaPlan as in the paper, and
    ``every_turn_told`` also names a failed step. ``matcher``: which steps an action serves (``MATCHERS``).
    ``plan_file``: the file for stages with ``plans: file``. ``warm_start``: the number of oracle demonstrations for
    supervised learning before the first stage.

    Updates: ``updates`` optimizer steps per iteration. ``algorithm``: the functions that collect, reward, credit and
    update. ``clip_low``, ``clip_high``, ``dual_clip``: the ranges of PPO-clip. ``batch_tokens``: the most padded tokens
    of one forward pass. ``betas``, ``weight_decay``: AdamW. ``gradient_clip``: the largest gradient norm.
    ``gradient_checkpointing``: saves memory in updates, which then take about a third longer. ``plan_kl``: the number
    of episodes per iteration for ``hiplan.training.plan_kl``. ``shard``: split weights and optimizer states over the
    processes (FSDP2); every process then plays all episodes in lockstep.
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
        """Accept the field names of version 0.1.0: ``revise`` for ``replan``, ``estimator`` for ``algorithm``."""
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
        """Decoding with these token limits, at the training temperature unless another is given."""
        return Decoding(self.temperature if temperature is None else temperature, self.plan_tokens, self.action_tokens)
