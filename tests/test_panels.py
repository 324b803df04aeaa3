"""Panels: their names, how they are cut, which tasks belong to which environment, and which kinds are held out."""

import random

import pytest

from hiplan.envs.tasks import (
    Panel,
    fresh_panel,
    heldout_task,
    is_heldout_kind,
    named_panel,
    shipped_panel,
    train_task,
)
from hiplan.errors import ConfigError
from hiplan.task import Task


def panel(*envs: str) -> Panel:
    return Panel(name="mine", tasks=tuple(Task(env=env, params={"seed": i}) for i, env in enumerate(envs)))


def test_parts_are_places_by_environment() -> None:
    assert panel("b", "a", "b").parts == {"all": (0, 1, 2), "a": (1,), "b": (0, 2)}
    assert panel("a", "a").parts == {"all": (0, 1)}, "one environment needs no rows of its own"


def test_a_cut_panel_spreads_over_the_whole_one() -> None:
    whole = panel(*["a"] * 10)
    assert [task.params["seed"] for task in whole.cut(4).tasks] == [0, 2, 4, 6]
    assert [task.params["seed"] for task in whole.cut(6).tasks] == [0, 1, 2, 3, 4, 5]
    assert whole.cut(4).name == "mine-4"


@pytest.mark.parametrize(
    ("name", "digest"),
    [("mixed-train-0", "c2ad436d09b3"), ("mixed-heldout-0-64", "6928450f772b"), ("mixed-dev-0-48", "3ab3f66c283a")],
)
def test_a_name_leads_back_to_the_panel(name: str, digest: str) -> None:
    """The hashes are those printed beside the published tables."""
    assert (named_panel(name).name, named_panel(name).hash) == (name, digest)


def test_a_name_with_a_seed_is_made_anew() -> None:
    assert named_panel("crafting-dev-7") == fresh_panel("dev", 7, "crafting")


@pytest.mark.parametrize("name", ["mixed-train", "mixed-test-0", "chess-train-0", "mixed-train-0-0", "../x"])
def test_a_name_that_no_panel_has_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown panel"):
        named_panel(name)


def test_held_out_kinds_are_those_that_training_never_draws() -> None:
    rng = random.Random(0)
    assert not any(is_heldout_kind(train_task(rng)) for _ in range(300))
    assert all(is_heldout_kind(heldout_task(rng)) for _ in range(300))
    assert sum(bool(is_heldout_kind(task)) for task in shipped_panel("dev").tasks) == 32
    assert is_heldout_kind(Task(env="chess")) is None
