"""The studies: each compares runs of the main job that differ in a few settings."""

from __future__ import annotations

from dataclasses import dataclass

SEARCH_SEED = 100  # the seed of the learning-rate search; not used for results


@dataclass(frozen=True)
class Arm:
    """One setting of a study.

    ``config``: a file in ``experiments/configs``; ``set``: overrides on top of it. ``agent``: the agent to evaluate,
    ``plan`` or ``none``. ``match``: the arm whose number of environment steps this arm uses, seed by seed.
    """

    label: str
    set: tuple[str, ...] = ()
    config: str | None = None
    agent: str = "plan"
    match: str | None = None


@dataclass(frozen=True)
class Study:
    """A comparison of ``arms``; the first is the reference.

    ``set``: overrides for every cell. ``rates``: the factors on the learning rates that each arm tries on the dev panel
    with ``SEARCH_SEED``. ``stages``: the stages whose evaluations are shown. ``reliance``: the panel on which to
    measure the last stage under different plans, if any.
    """

    title: str
    arms: dict[str, Arm]
    set: tuple[str, ...] = ()
    rates: tuple[float, ...] = ()
    stages: tuple[str, ...] = ("final",)
    reliance: str | None = None


SMALL = (  # the same number of environment steps for every arm; a cell takes 2 to 4 minutes
    "train.stages.executor.env_steps=1000",
    "train.stages.executor.iterations=1000",
    "train.stages.planner.env_steps=3000",
    "train.stages.planner.iterations=1000",
    "train.stages.joint.env_steps=6000",
    "train.stages.joint.iterations=1000",
    "panel_tasks=48",
    "decodings=[greedy]",
    "agents=[plan]",
    "stage_panels=[train,dev,heldout]",
)


WARM_START = ("train.warm_start=256",)  # oracle episodes with the arm's replan policy; their steps do not count


def guard(title: str, adherence: float, steps: int) -> Study:
    """A study that trains the executor with the plans of an untrained planner and rewards adherence to them."""

    def arm(label: str, weight: float, kind: str) -> Arm:
        stage = "name: executor, trains: [executor], plans: self, no_plan: 0.15, learning_rate: 1.0e-3"
        rewards = f"adherence: {weight}, guard: {kind}"
        return Arm(
            label, (f"train.stages=[{{{stage}, iterations: 1000, env_steps: {steps}, rewards: {{{rewards}}}}}]",)
        )

    return Study(
        title,
        {
            "off": arm("no adherence reward", 0.0, "none"),
            "none": arm("adherence, no guard", adherence, "none"),
            "success": arm("adherence if it succeeds", adherence, "success"),
            "either": arm("adherence if it succeeds or the judge passes the plan", adherence, "either"),
        },
        set=("panel_tasks=48", "decodings=[greedy]", "agents=[plan]"),
        reliance="train",
    )


STUDIES = {
    "main": Study("The main job over seeds", {"main": Arm("three stages, split weights")}),
    "baselines": Study(
        "Three stages against two baselines with the same number of environment steps",
        {
            "main": Arm("three stages, split weights"),
            "rejection": Arm("rejection-sampling fine-tuning", config="rejection.yaml", match="main"),
            "react-grpo": Arm("ReAct + GRPO (never a plan)", config="react-grpo.yaml", agent="none", match="main"),
        },
    ),
    "weights": Study(
        "Shared or split weights",
        {
            "split": Arm("split, rank 8 each", ("weights.mode=split", "weights.lora={rank: 8, alpha: 16}")),
            "joint": Arm("joint, rank 8", ("weights.mode=joint", "weights.lora={rank: 8, alpha: 16}")),
            "joint-2r": Arm("joint, rank 16", ("weights.mode=joint", "weights.lora={rank: 16, alpha: 32}")),
            "partial": Arm("partial, 8 shared + 8 each", ("weights.mode=partial", "weights.lora={rank: 8, alpha: 16}")),
            "separate": Arm("separate, rank 8 each", ("weights.mode=separate", "weights.lora={rank: 8, alpha: 16}")),
        },
        set=SMALL,
        rates=(0.5, 1.0, 2.0),
        stages=("executor", "planner", "final"),
    ),
    "revise": Study(
        "When plans are revised, in training and after it (shown first: by 256 oracle episodes beside the steps)",
        {
            "on_failure": Arm("on failure", ("train.replan=on_failure",)),
            "every_turn": Arm("every turn (AdaPlan)", ("train.replan=every_turn",)),
            "every_turn_told": Arm("every turn, told what failed", ("train.replan=every_turn_told",)),
            "never": Arm("never", ("train.replan=never",)),
            "on_failure-shown": Arm("on failure, shown first", ("train.replan=on_failure", *WARM_START)),
            "every_turn-shown": Arm("every turn (AdaPlan), shown first", ("train.replan=every_turn", *WARM_START)),
            "every_turn_told-shown": Arm(
                "every turn, told what failed, shown first", ("train.replan=every_turn_told", *WARM_START)
            ),
        },
        set=SMALL,
        stages=("base", "executor", "planner", "final"),
    ),
    "guard": guard("Rewarding adherence under the plans of an untrained planner", adherence=0.5, steps=2500),
    "guard-strong": guard(
        "Rewarding adherence four times as much and twice as long, under equally poor plans", adherence=2.0, steps=5000
    ),
}  # fmt: skip
