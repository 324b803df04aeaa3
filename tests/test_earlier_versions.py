"""What version 0.1.0 wrote before its fields were renamed can still be read."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hiplan.runs.measure import as_trained
from hiplan.runs.settings import RunConfig, read_run
from hiplan.trace import Episode
from hiplan.training import AlgorithmConfig, TrainConfig

REJECTION = AlgorithmConfig(reward="success", credit="successes", loss="likelihood", drop_zero=True)


@pytest.mark.parametrize(
    ("estimator", "algorithm"),
    [("grpo", AlgorithmConfig()), ("loo", AlgorithmConfig(credit="loo")), ("rejection", REJECTION)],
)
def test_a_runs_settings(estimator: str, algorithm: AlgorithmConfig, tmp_path: Path) -> None:
    known: dict[str, Any] = RunConfig().model_dump(mode="json")
    del known["train"]["algorithm"], known["train"]["replan"], known["train"]["matcher"]
    known["train"] |= {"estimator": estimator, "revise": "never"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(known), encoding="utf-8")
    config = read_run(tmp_path)
    assert config.train.algorithm == algorithm and config.train.replan == "never"
    assert TrainConfig.model_validate(config.train.model_dump()) == config.train


def test_a_stages_facts() -> None:
    facts = {
        "revise": "every_turn",
        "env": "crafting",
        "eval_turns": 7,
        "decoding": {"plan_tokens": 5, "action_tokens": 6},
    }
    config = as_trained(facts)
    assert (config.train.replan, config.env, config.eval_turns, config.train.plan_tokens) == (
        "every_turn",
        "crafting",
        7,
        5,
    )


def test_a_transcript() -> None:
    text = (Path(__file__).parent / "golden" / "crafting-mended.json").read_text(encoding="utf-8")
    old = yaml.safe_load(text) | {"mistakes": {"planner": 1}}
    for talk in old["conversations"].values():
        for segment in talk["segments"]:
            del segment["mistake"]
    for turn in old["turns"]:
        del turn["success"]

    episode = Episode.from_json(json.dumps(old))
    assert episode.success and len(episode.turns) == len(old["turns"])
