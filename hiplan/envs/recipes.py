"""The recipes of a crafting task: a user's own, or generated from a seed."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hiplan.errors import TaskError
from hiplan.task import Task
from hiplan.text import shorten

ITEMS = (
    "arrow axe bag barrel beam bell belt board boat bolt book boot bow bowl box brick broom brush bucket candle "
    "cart chain chair chest clay cloth coal coat coin cord crate crown cup dagger door drum dust fence flag flute "
    "frame gear glass glove gold hammer handle hat helmet hinge hook horn iron jar key kite knife ladder lamp leaf "
    "leather lens lever lock log loom mask mat mirror nail needle net oar oil paint paper pearl pin pipe plank "
    "plate pole pot quill reed ring rod rope ruby sack sail salt sand saw seed shell shield shoe silk silver slate "
    "spear spool spoon spring stamp steel stone string sword table tent thread tile tin torch tower tray vase wagon "
    "wax wheel whip wick wing wire wood wool yarn"
).split()

_AMOUNT = re.compile(r"^(?:([0-9]{1,4}) )?([a-z][a-z ]*)$")
_RECIPE = re.compile(r"^craft (?:([0-9]{1,4}) )?([a-z][a-z ]*?) using (.+)$")


@dataclass(frozen=True)
class Recipe:
    """``craft {makes} {item} using {needs}``; ``needs`` are item and count, in the order written."""

    item: str
    makes: int
    needs: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        needs = ", ".join(f"{count} {item}" for item, count in self.needs)
        return f"craft {self.makes} {self.item} using {needs}"


@dataclass(frozen=True)
class RecipeBook:
    """The recipes by item, and the item to craft.

    ``kinds``: the items that meet a generic ingredient. ``lines``: the recipes in the order in which they are shown.
    """

    recipes: dict[str, Recipe]
    goal: str
    kinds: dict[str, tuple[str, ...]]
    lines: list[str]


class Knobs(BaseModel):
    """Parameters of a generated task.

    ``depth``: the longest chain of recipes from raw items to the goal. ``crafts``: the most recipes the goal may need.
    ``width``: the most ingredients of a recipe. ``distractors``: recipes the goal does not need. ``max_count``: the
    most of one raw ingredient. ``max_yield``: the most items one use of a recipe makes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int
    depth: int = Field(default=2, ge=1, le=12)
    crafts: int = Field(default=5, ge=1, le=40)
    width: int = Field(default=2, ge=1, le=4)
    distractors: int = Field(default=2, ge=0, le=40)
    max_count: int = Field(default=2, ge=1, le=9)
    max_yield: int = Field(default=1, ge=1, le=9)


def read_recipes(task: Task) -> RecipeBook:
    """The task's recipes. Raises ``TaskError`` for parameters that make no task."""
    if "recipes" in task.params:
        return _given(task)
    try:
        knobs = Knobs.model_validate(task.params)
    except ValidationError as error:
        first = error.errors()[0]
        raise TaskError(f"crafting task parameter {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    try:
        return _generate(knobs)
    except IndexError:
        raise TaskError(
            f"a crafting task of {knobs!r} needs more than the {len(ITEMS)} item names there are; "
            "lower crafts, width or distractors"
        ) from None


def _generate(knobs: Knobs) -> RecipeBook:
    rng = random.Random(f"crafting {knobs.model_dump_json()}")
    names = list(ITEMS)
    rng.shuffle(names)
    recipes: dict[str, Recipe] = {}

    def recipe_for(item: str, needs: list[str]) -> Recipe:
        counts = [1 if n in recipes else rng.randint(1, knobs.max_count) for n in needs]
        return Recipe(item, rng.randint(1, knobs.max_yield), tuple(zip(needs, counts, strict=True)))

    def grow(item: str, depth: int, budget: int) -> int:
        """Make recipes for ``item`` and its ingredients, ``depth`` deep. Returns how many were made."""
        used, needs = 1, []
        for position in range(rng.randint(1, knobs.width)):
            if depth == 1 or (position > 0 and budget - used < 1):
                child_depth = 0
            elif position == 0:
                child_depth = depth - 1
            else:
                child_depth = rng.randint(0, min(depth - 1, budget - used))
            child = names.pop()
            if child_depth:
                used += grow(child, child_depth, budget - used)
            needs.append(child)
        rng.shuffle(needs)
        recipes[item] = recipe_for(item, needs)
        return used

    goal = names.pop()
    grow(goal, knobs.depth, max(knobs.crafts, knobs.depth))
    for _ in range(knobs.distractors):
        width = rng.randint(1, knobs.width)
        near = sorted({n for recipe in recipes.values() for n, _ in recipe.needs})
        needs = [rng.choice(near) if rng.random() < 0.3 else names.pop() for _ in range(width)]
        item = names.pop()
        recipes[item] = recipe_for(item, list(dict.fromkeys(needs)))
    lines = [str(recipe) for recipe in recipes.values()]
    rng.shuffle(lines)
    return RecipeBook(recipes, goal, {}, lines)


def _given(task: Task) -> RecipeBook:
    lines, goal, kinds = task.params["recipes"], task.params.get("goal"), task.params.get("kinds", {})
    if not isinstance(lines, list) or not isinstance(goal, str) or not isinstance(kinds, dict):
        raise TaskError("a crafting task with recipes needs 'recipes' (a list of lines) and 'goal' (an item)")
    odd = sorted(set(task.params) - {"recipes", "goal", "kinds"})
    if odd:
        raise TaskError(
            f"crafting task parameter {odd[0]!r} cannot be combined with recipes; expected 'goal' and 'kinds' only"
        )
    recipes: dict[str, Recipe] = {}
    for line in lines:
        recipe = parse_recipe(str(line))
        if recipe is None:
            raise TaskError(f"recipe line {line!r} is not of the form 'craft 4 planks using 1 log'")
        if recipe.item in recipes:
            raise TaskError(f"two recipes make {recipe.item!r}; give every item one recipe")
        if len(dict(recipe.needs)) < len(recipe.needs):
            raise TaskError(f"recipe line {line!r} names an ingredient twice; write it once, with the sum")
        recipes[recipe.item] = recipe
    if goal not in recipes:
        raise TaskError(f"no recipe makes the goal {goal!r}")
    for key, value in kinds.items():
        if not isinstance(value, list) or not value:
            raise TaskError(
                f"kind {key!r} is {value!r}; expected a list of the items that meet it, such as ['oak planks']"
            )
    known = {key: tuple(map(str, value)) for key, value in kinds.items() if isinstance(value, list)}
    _refuse_circles(recipes, known)
    return RecipeBook(recipes, goal, known, [str(line) for line in lines])


def _refuse_circles(recipes: dict[str, Recipe], kinds: dict[str, tuple[str, ...]]) -> None:
    """Raises ``TaskError`` where an item is needed to make itself."""
    import networkx as nx

    graph = nx.DiGraph(
        (need, recipe.item)
        for recipe in recipes.values()
        for ingredient, _ in recipe.needs
        for need in kinds.get(ingredient, (ingredient,))
    )
    if not nx.is_directed_acyclic_graph(graph):
        circle = " -> ".join(edge[0] for edge in nx.find_cycle(graph))
        raise TaskError(f"the recipes need each other in a circle: {shorten(circle, 200)}")


def parse_recipe(text: str) -> Recipe | None:
    """Read ``craft N x using n a, m b``; ``None`` for other text."""
    match = _RECIPE.match(text)
    if match is None:
        return None
    needs = [parse_amount(part.strip()) for part in match[3].split(",")]
    amounts = tuple(need for need in needs if need is not None)
    makes = int(match[1] or 1)
    if len(amounts) < len(needs) or makes == 0 or any(count == 0 for _, count in amounts):
        return None
    return Recipe(match[2], makes, amounts)


def parse_amount(text: str) -> tuple[str, int] | None:
    """Read ``n item`` or ``item``, which is one; ``None`` for other text."""
    match = _AMOUNT.match(text)
    return (match[2], int(match[1] or 1)) if match else None
