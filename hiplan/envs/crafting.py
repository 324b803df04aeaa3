"""Crafting in TextCraft's grammar: read recipes, fetch raw items, craft the goal.

Recipes are generated from a seed, so an agent has to look them up in its context and cannot memorise them.
An item that some recipe makes cannot be fetched. The reward is 1 for crafting the goal.

Task parameters: either those of ``recipes.Knobs``, or a user's own recipes as
``{"recipes": ["craft 4 oak planks using 1 oak log", ...], "goal": "stick", "kinds": {"planks": ["oak planks"]}}``
where ``kinds`` lists the items that meet a generic ingredient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from hiplan.envs.recipes import Recipe, parse_amount, parse_recipe, read_recipes
from hiplan.errors import TaskError
from hiplan.plan import MAX_STEPS, Plan, PlanStep, StepStatus
from hiplan.task import StepResult, Task


class Crafting:
    """Implements ``Environment``, ``Oracle`` and ``PlanAware``. Plan steps read ``make X`` or ``get N X``."""

    def __init__(self, task: Task) -> None:
        """Does nothing: ``reset`` sets the task up."""

    def reset(self, task: Task) -> str:
        book = read_recipes(task)
        self.recipes, self.goal, self._kinds = book.recipes, book.goal, book.kinds
        self.inventory: Counter[str] = Counter()
        self._obtained: Counter[str] = Counter()  # all that was ever fetched or crafted
        self._not_found: set[str] = set()
        self._done = False
        if len(needed := self._totals(self.goal, use_inventory=False)) > MAX_STEPS:
            raise TaskError(f"{self.goal!r} needs {len(needed)} recipes, but a plan has at most {MAX_STEPS} steps")
        return "\n".join(["Recipes:", *book.lines, f"Goal: craft {self.goal}."])

    def step(self, action: str) -> StepResult:
        text = " ".join(action.split())
        if self._done or len(text) > 300 or text != action.strip():
            return StepResult(f"Could not execute {text[:80]}", refused=True)
        if text == "inventory":
            return StepResult(self._list_inventory())
        recipe = parse_recipe(text)
        if recipe is not None:
            return self._craft(recipe)
        amount = parse_amount(text[4:]) if text.startswith("get ") else None
        if amount:
            return self._get(*amount)
        return StepResult(f"Could not execute {text[:80]}", refused=True)

    def state_key(self) -> Hashable:
        return (self._done, tuple(sorted(self.inventory.items())))

    def close(self) -> None:
        pass

    # -- oracle ------------------------------------------------------------------------------

    def oracle_plan(self) -> Plan:
        """One ``make`` step per item still to be crafted, in post-order of the goal's recipe graph.

        The rationale lists what each of them needs, starting with the goal.
        """
        todo = list(self._totals(self.goal, use_inventory=True))
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
        """Fetches the step's missing raw ingredients, then crafts."""
        if step is None:
            step = self.oracle_plan().steps[0].description
        verb, _, rest = step.partition(" ")
        if verb != "make" or rest not in self.recipes:
            return step if verb == "get" else "inventory"
        recipe = self.recipes[rest]
        times = self._totals(self.goal, use_inventory=True).get(rest, 1)
        needs = tuple((self._concrete(item), count) for item, count in recipe.needs)
        for item, count in needs:
            missing = count * times - self.inventory[item]
            if missing > 0 and item not in self.recipes:
                return f"get {missing} {item}"
        return str(Recipe(recipe.item, recipe.makes, needs))

    # -- plan awareness ----------------------------------------------------------------------

    def subgoals(self) -> dict[str, tuple[str, ...]]:
        needed = self._totals(self.goal, use_inventory=False)
        parts = {item: [self._concrete(need) for need, _ in self.recipes[item].needs] for item in needed}
        return {item: tuple(part for part in parts[item] if part in needed) for item in needed}

    def subgoal_of(self, step: str) -> str | None:
        verb, _, rest = step.strip().lower().rstrip(".").partition(" ")
        amount = parse_amount(rest)
        if amount is None:
            return None
        item, _ = amount
        if verb in ("make", "craft") and item in self.recipes:
            return item
        return f"get {item}" if verb == "get" and item in self._raw() else None

    def step_status(self, step: str) -> StepStatus:
        verb, _, rest = step.strip().lower().rstrip(".").partition(" ")
        amount = parse_amount(rest)
        if amount is None:
            return StepStatus.OPEN
        item, count = amount
        if verb == "get" and item in self._not_found:
            return StepStatus.FAILED
        done = verb in ("make", "craft", "get") and self._obtained[item] >= count
        return StepStatus.DONE if done else StepStatus.OPEN

    def serves(self, step: str, action: str) -> bool:
        verb, _, rest = step.strip().lower().rstrip(".").partition(" ")
        amount, text = parse_amount(rest), " ".join(action.split())
        if amount is None:
            return False
        item, _ = amount
        made = parse_recipe(text)
        fetched = parse_amount(text[4:]) if text.startswith("get ") else None
        if verb == "get":
            return fetched is not None and fetched[0] == item
        if verb not in ("make", "craft"):
            return False
        if made is not None:
            return made.item == item
        recipe = self.recipes.get(item)
        return fetched is not None and recipe is not None and any(self._meets(fetched[0], n) for n, _ in recipe.needs)

    # -- engine ------------------------------------------------------------------------------

    def _get(self, item: str, count: int) -> StepResult:
        if item not in self._raw() or count < 1:
            self._not_found.add(item)
            return StepResult(f"Could not find {item}", refused=True)
        self.inventory[item] += count
        self._obtained[item] += count
        return StepResult(f"Got {count} {item}")

    def _craft(self, asked: Recipe) -> StepResult:
        recipe = self.recipes.get(asked.item)
        if recipe is None or asked.makes != recipe.makes or not self._same_needs(asked, recipe):
            return StepResult(f"Could not find a valid recipe for {asked.item}", refused=True)
        if any(self.inventory[item] < count for item, count in asked.needs):
            return StepResult(f"Could not find enough items to craft {asked.item}", refused=True)
        self.inventory.subtract(dict(asked.needs))
        self.inventory = +self.inventory
        self.inventory[recipe.item] += recipe.makes
        self._obtained[recipe.item] += recipe.makes
        self._done = recipe.item == self.goal
        return StepResult(f"Crafted {recipe.makes} {recipe.item}", reward=float(self._done), terminated=self._done)

    def _same_needs(self, asked: Recipe, recipe: Recipe) -> bool:
        """Whether the ingredients of the action meet those of the recipe, one for one in any order."""
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
        """Items that can be fetched: ingredients that no recipe makes."""
        needed = {item for recipe in self.recipes.values() for item, _ in recipe.needs}
        concrete = {item for need in needed for item in self._kinds.get(need, (need,))}
        return concrete - set(self.recipes)

    def _list_inventory(self) -> str:
        if not self.inventory:
            return "Inventory: You are not carrying any items."
        return "Inventory: " + "".join(f"[{item}] ({count}) " for item, count in sorted(self.inventory.items()))

    def _totals(self, goal: str, use_inventory: bool) -> dict[str, int]:
        """How often each recipe has to be used for the goal, ingredients first (post-order)."""
        demand: Counter[str] = Counter({goal: 1})
        order: dict[str, None] = {}
        stack = [(self._concrete(goal), False)]  # not recursive: a user's chain of recipes may be long
        while stack:
            item, needs_done = stack.pop()
            if needs_done:
                order[item] = None
            elif item in self.recipes and item not in order:
                stack.append((item, True))
                stack += [(self._concrete(need), False) for need, _ in reversed(self.recipes[item].needs)]
        times: dict[str, int] = {}
        for item in reversed(order):
            missing = demand[item] - (self.inventory[item] if use_inventory else 0)
            times[item] = max(0, -(-missing // self.recipes[item].makes))  # rounded up
            for need, count in self.recipes[item].needs:
                demand[self._concrete(need)] += count * times[item]
        return {item: times[item] for item in order if times[item] > 0}

    def _concrete(self, ingredient: str) -> str:
        """The item to use for an ingredient: of a generic one's items the first in the inventory, else the first."""
        kinds = self._kinds.get(ingredient, ())
        return next((kind for kind in kinds if self.inventory[kind]), kinds[0]) if kinds else ingredient
