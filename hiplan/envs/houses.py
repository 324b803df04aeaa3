"""The houses of household tasks, generated from a seed."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hiplan.errors import TaskError
from hiplan.task import Task

OPENABLE = ("box", "cabinet", "chest", "cupboard", "drawer", "safe")
FLAT = ("bed", "bench", "desk", "rack", "shelf", "sofa", "stool", "table")
TOOLS = {"clean": "sink", "heat": "oven", "cool": "fridge"}
OBJECTS = (
    "apple bottle bowl bread cup egg fork glass kettle knife lemon mug onion orange pan "
    "pear plate plum pot potato spoon tomato"
).split()


class Knobs(BaseModel):
    """Parameters of a generated task.

    ``kind``: what has to be done. ``places``: places that can hold objects (tools not counted).
    ``clutter``: objects the task does not need. ``rooms``: rooms the places are spread over.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int
    kind: Literal["put", "clean", "heat", "cool", "two", "look"] = "put"
    places: int = Field(default=4, ge=2, le=20)
    clutter: int = Field(default=2, ge=0, le=20)
    rooms: int = Field(default=1, ge=1, le=4)


@dataclass(frozen=True)
class House:
    """A task at its start.

    ``target``: the kind of object to find; ``names``: the objects of that kind, of which ``two`` needs both.
    ``places``: where objects can be. ``all_places``: these and the tool, in the order of the first observation.
    ``destination``: a kind of place, as in ALFWorld; ``None`` for ``look``. ``where``: the place of each object.
    """

    kind: str
    target: str
    names: list[str]
    places: list[str]
    all_places: list[str]
    tool: str | None
    destination: str | None
    where: dict[str, str]
    rooms: int


def build_house(task: Task) -> House:
    """Raises ``TaskError`` for parameters that make no task."""
    try:
        knobs = Knobs.model_validate(task.params)
    except ValidationError as error:
        first = error.errors()[0]
        raise TaskError(f"household task parameter {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    rng = random.Random(f"household {knobs.model_dump_json()}")
    kinds = rng.choices(OPENABLE, k=knobs.places // 2) + rng.choices(FLAT, k=knobs.places - knobs.places // 2)
    rng.shuffle(kinds)
    count: Counter[str] = Counter()
    places: list[str] = []
    for kind in kinds:
        count[kind] += 1
        places.append(f"{kind} {count[kind]}")
    tool = f"{TOOLS[knobs.kind]} 1" if knobs.kind in TOOLS else "lamp 1" if knobs.kind == "look" else None
    target, *others = rng.sample(OBJECTS, k=1 + min(knobs.clutter, len(OBJECTS) - 1))
    names = [f"{target} {i + 1}" for i in range(2 if knobs.kind == "two" else 1)]
    sources = list(places)
    destination: str | None = None
    if knobs.kind != "look":
        destination = rng.choice(sorted({p.split()[0] for p in places}))
        elsewhere = [p for p in sources if p.split()[0] != destination]
        sources = elsewhere or sources
    where = {name: rng.choice(sources) for name in names}
    for other in others:
        where[f"{other} 1"] = rng.choice(places)
    all_places = [*places, *([tool] if tool else [])]
    rng.shuffle(all_places)
    return House(knobs.kind, target, names, places, all_places, tool, destination, where, knobs.rooms)
