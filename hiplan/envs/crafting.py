"""Crafting in TextCraft's grammar: read recipes, fetch raw items, craft the goal.

Recipes are generated from a seed, so they must be looked up in the context and never memorised.
An item that some recipe makes cannot be fetched. Reward 1 for crafting the goal.

Task parameters: either ``seed`` and the knobs of ``Knobs`` below, or a user's own recipes as
``{"recipes": ["craft 4 oak planks using 1 oak log", ...], "goal": "stick", "kinds": {"planks": ["oak planks"]}}``
where ``kinds`` says which items meet a generic ingredient.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hiplan.errors import TaskError
from hiplan.plan import MAX_STEPS, Plan, PlanStep, StepStatus
from hiplan.task import StepResult, Task
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


class Knobs(BaseModel):
    """How a generated task looks.

    ``depth``: longest chain of recipes from raw items to the goal. ``crafts``: the most recipes
    the goal may need. ``width``: the most ingredients of a recipe. ``distractors``: recipes nobody needs.
    ``max_count``: the most of one raw ingredient. ``max_yield``: the most a recipe makes at once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int
    depth: int = Field(default=2, ge=1, le=12)
    crafts: int = Field(default=5, ge=1, le=40)
    width: int = Field(default=2, ge=1, le=4)
    distractors: int = Field(default=2, ge=0, le=40)
    max_count: int = Field(default=2, ge=1, le=9)
    max_yield: int = Field(default=1, ge=1, le=9)


@dataclass(frozen=True)
class Recipe:
    """``craft {makes} {item} using {needs}``; ``needs`` keeps the order in which it was written."""

    item: str
    makes: int
    needs: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        needs = ", ".join(f"{count} {item}" for item, count in self.needs)
        return f"craft {self.makes} {self.item} using {needs}"


class Crafting:
    """See the module. Also an ``Oracle`` and ``PlanAware``: plan steps read ``make X`` or ``get N X``."""

    def __init__(self, task: Task) -> None:
        """``reset`` builds the task's world."""

    def reset(self, task: Task) -> str:
        self.recipes, self.goal, self._kinds, lines = _build(task)
        self.held: Counter[str] = Counter()
        self._ever: Counter[str] = Counter()
        self._not_found: set[str] = set()
        self._done = False
        if len(needed := self._totals(self.goal, include_held=False)) > MAX_STEPS:
            raise TaskError(f"{self.goal!r} needs {len(needed)} recipes, but a plan has at most {MAX_STEPS} steps")
        return "\n".join(["Recipes:", *lines, f"Goal: craft {self.goal}."])

    def step(self, action: str) -> StepResult:
        text = " ".join(action.split())
        if self._done or len(text) > 300 or text != action.strip():
            return StepResult(f"Could not execute {text[:80]}", refused=True)
        if text == "inventory":
            return StepResult(self._inventory())
        recipe = parse_recipe(text)
        if recipe is not None:
            return self._craft(recipe)
        amount = _AMOUNT.match(text[4:]) if text.startswith("get ") else None
        if amount:
            return self._get(amount[2], int(amount[1] or 1))
        return StepResult(f"Could not execute {text[:80]}", refused=True)

    def state_key(self) -> Hashable:
        return (self._done, tuple(sorted(self.held.items())))

    def close(self) -> None:
        pass

    # -- oracle ------------------------------------------------------------------------------

    def oracle_plan(self) -> Plan:
        """Post-order of the goal's recipe graph: one ``make`` step per item still to be crafted.

        The rationale says what each of them needs, from the goal down.
        """
        todo = list(self._totals(self.goal, include_held=True))
        ids = {item: i + 1 for i, item in enumerate(todo)}
        steps = tuple(
            PlanStep(
                id=ids[item],
                description=f"make {item}",
                after=tuple(sorted({ids[n] for n, _ in self.recipes[item].needs if n in ids})),
            )
            for item in todo
        )
        needs = [f"for {item}: {', '.join(need for need, _ in self.recipes[item].needs)}" for item in reversed(todo)]
        return Plan(goal=f"craft {self.goal}", steps=steps, rationale="\n".join(needs))

    def oracle_action(self, step: str | None) -> str:
        """Fetch what is missing of the step's raw ingredients, then craft."""
        if step is None:
            step = self.oracle_plan().steps[0].description
        verb, _, rest = step.partition(" ")
        if verb != "make" or rest not in self.recipes:
            return step if verb == "get" else "inventory"
        recipe = self.recipes[rest]
        times = self._totals(self.goal, include_held=True).get(rest, 1)
        needs = tuple((self._concrete(item), count) for item, count in recipe.needs)
        for item, count in needs:
            missing = count * times - self.held[item]
            if missing > 0 and item not in self.recipes:
                return f"get {missing} {item}"
        return str(Recipe(recipe.item, recipe.makes, needs))

    # -- plan awareness ----------------------------------------------------------------------

    def subgoals(self) -> dict[str, tuple[str, ...]]:
        needed = self._totals(self.goal, include_held=False)
        parts = {item: [self._concrete(need) for need, _ in self.recipes[item].needs] for item in needed}
        return {item: tuple(part for part in parts[item] if part in needed) for item in needed}

    def subgoal_of(self, step: str) -> str | None:
        verb, _, rest = step.strip().lower().rstrip(".").partition(" ")
        amount = _AMOUNT.match(rest)
        if verb in ("make", "craft") and amount and amount[2] in self.recipes:
            return amount[2]
        if verb == "get" and amount and amount[2] not in self.recipes and amount[2] in self._raw():
            return f"get {amount[2]}"
        return None

    def step_status(self, step: str) -> StepStatus:
        verb, _, rest = step.strip().lower().rstrip(".").partition(" ")
        amount = _AMOUNT.match(rest)
        if amount is None:
            return StepStatus.OPEN
        item, count = amount[2], int(amount[1] or 1)
        if verb == "get" and item in self._not_found:
            return StepStatus.FAILED
        return StepStatus.DONE if verb in ("make", "craft", "get") and self._ever[item] >= count else StepStatus.OPEN

    def serves(self, step: str, action: str) -> bool:
        verb, _, rest = step.strip().lower().rstrip(".").partition(" ")
        amount, text = _AMOUNT.match(rest), " ".join(action.split())
        if amount is None:
            return False
        made = parse_recipe(text)
        fetched = _AMOUNT.match(text[4:]) if text.startswith("get ") else None
        if verb == "get":
            return fetched is not None and fetched[2] == amount[2]
        if verb not in ("make", "craft"):
            return False
        if made is not None:
            return made.item == amount[2]
        recipe = self.recipes.get(amount[2])
        return fetched is not None and recipe is not None and any(self._meets(fetched[2], n) for n, _ in recipe.needs)

    # -- engine ------------------------------------------------------------------------------

    def _get(self, item: str, count: int) -> StepResult:
        if item not in self._raw() or count < 1:
            self._not_found.add(item)
            return StepResult(f"Could not find {item}", refused=True)
        self.held[item] += count
        self._ever[item] += count
        return StepResult(f"Got {count} {item}")

    def _craft(self, asked: Recipe) -> StepResult:
        recipe = self.recipes.get(asked.item)
        if recipe is None or asked.makes != recipe.makes or not self._same_needs(asked, recipe):
            return StepResult(f"Could not find a valid recipe for {asked.item}", refused=True)
        if any(self.held[item] < count for item, count in asked.needs):
            return StepResult(f"Could not find enough items to craft {asked.item}", refused=True)
        self.held.subtract(dict(asked.needs))
        self.held = +self.held
        self.held[recipe.item] += recipe.makes
        self._ever[recipe.item] += recipe.makes
        self._done = recipe.item == self.goal
        return StepResult(f"Crafted {recipe.makes} {recipe.item}", reward=float(self._done), terminated=self._done)

    def _same_needs(self, asked: Recipe, recipe: Recipe) -> bool:
        """Whether the asked ingredients meet the recipe's, one for one in any order."""
        if len(dict(asked.needs)) != len(asked.needs) or len(asked.needs) != len(recipe.needs):
            return False

        def fit(asked: tuple[tuple[str, int], ...], left: tuple[tuple[str, int], ...]) -> bool:
            if not asked:
                return True
            (item, count), *rest = asked
            fitting = [i for i, need in enumerate(left) if need[1] == count and self._meets(item, need[0])]
            return any(fit(tuple(rest), left[:i] + left[i + 1 :]) for i in fitting)

        return fit(asked.needs, recipe.needs)

    def _meets(self, item: str, ingredient: str) -> bool:
        return item == ingredient or item in self._kinds.get(ingredient, ())

    def _raw(self) -> set[str]:
        needed = {item for recipe in self.recipes.values() for item, _ in recipe.needs}
        concrete = {item for need in needed for item in self._kinds.get(need, (need,))}
        return concrete - set(self.recipes)

    def _inventory(self) -> str:
        if not self.held:
            return "Inventory: You are not carrying any items."
        return "Inventory: " + "".join(f"[{item}] ({count}) " for item, count in sorted(self.held.items()))

    def _totals(self, goal: str, include_held: bool) -> dict[str, int]:
        """How often each recipe must run for the goal, in an order in which it can (post-order)."""
        demand: Counter[str] = Counter({goal: 1})
        order: dict[str, None] = {}
        stack = [(self._concrete(goal), False)]  # not recursive: a chain of recipes may be long
        while stack:
            item, needs_done = stack.pop()
            if needs_done:
                order[item] = None
            elif item in self.recipes and item not in order:
                stack.append((item, True))
                stack += [(self._concrete(need), False) for need, _ in reversed(self.recipes[item].needs)]
        times: dict[str, int] = {}
        for item in reversed(order):
            missing = demand[item] - (self.held[item] if include_held else 0)
            times[item] = max(0, -(-missing // self.recipes[item].makes))  # rounded up
            for need, count in self.recipes[item].needs:
                demand[self._concrete(need)] += count * times[item]
        return {item: times[item] for item in order if times[item] > 0}

    def _concrete(self, ingredient: str) -> str:
        kinds = self._kinds.get(ingredient, ())
        return next((kind for kind in kinds if self.held[kind]), kinds[0]) if kinds else ingredient


def parse_recipe(text: str) -> Recipe | None:
    """Read ``craft N x using n a, m b``; ``None`` when it is not that."""
    match = _RECIPE.match(text)
    if match is None:
        return None
    needs = [_AMOUNT.match(part.strip()) for part in match[3].split(",")]
    if any(need is None for need in needs):
        return None
    amounts = tuple((need[2], int(need[1] or 1)) for need in needs if need is not None)
    makes = int(match[1] or 1)
    return Recipe(match[2], makes, amounts) if makes > 0 and all(count > 0 for _, count in amounts) else None


def _build(task: Task) -> tuple[dict[str, Recipe], str, dict[str, tuple[str, ...]], list[str]]:
    """Recipes by item, the goal, generic kinds, and the recipe lines in the order they are shown."""
    if "recipes" in task.params:
        return _load(task)
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


def _generate(knobs: Knobs) -> tuple[dict[str, Recipe], str, dict[str, tuple[str, ...]], list[str]]:
    rng = random.Random(f"crafting {knobs.model_dump_json()}")
    names = list(ITEMS)
    rng.shuffle(names)
    recipes: dict[str, Recipe] = {}

    def recipe_for(item: str, needs: list[str]) -> Recipe:
        counts = [1 if n in recipes else rng.randint(1, knobs.max_count) for n in needs]
        return Recipe(item, rng.randint(1, knobs.max_yield), tuple(zip(needs, counts, strict=True)))

    def grow(item: str, depth: int, budget: int) -> int:
        """Give ``item`` a recipe that is ``depth`` deep; returns how many recipes were used."""
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
    return recipes, goal, {}, lines


def _load(task: Task) -> tuple[dict[str, Recipe], str, dict[str, tuple[str, ...]], list[str]]:
    lines, goal, kinds = task.params["recipes"], task.params.get("goal"), task.params.get("kinds", {})
    if not isinstance(lines, list) or not isinstance(goal, str) or not isinstance(kinds, dict):
        raise TaskError("a crafting task with recipes needs 'recipes' (a list of lines) and 'goal' (an item)")
    odd = sorted(set(task.params) - {"recipes", "goal", "kinds"})
    if odd:
        raise TaskError(
            f"crafting task parameter {odd[0]!r} does not go with recipes; expected 'goal' and 'kinds' only"
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
            raise TaskError(f"kind {key!r} is {value!r}; expected a list of the items that meet it, as ['oak planks']")
    known = {key: tuple(map(str, value)) for key, value in kinds.items() if isinstance(value, list)}
    _refuse_circles(recipes, known)
    return recipes, goal, known, [str(line) for line in lines]


def _refuse_circles(recipes: dict[str, Recipe], kinds: dict[str, tuple[str, ...]]) -> None:
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
