"""Demonstrations for tiny-v1: episodes of the embedded environments played by mixed strategies.

The real loop is run with a planner and an executor whose strategy is drawn once per episode. Good
strategies are the minority: a model trained on these has every skill and mostly chooses wrongly, as a
large instruction model does in a new environment.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from pydantic import JsonValue

from hiplan.coordination import Limits
from hiplan.effects import Effects
from hiplan.envs import make_env
from hiplan.envs.crafting import Crafting
from hiplan.envs.household import Household, chain
from hiplan.model import ScriptedModel
from hiplan.plan import Plan, PlanRevision, PlanStep, ReplanReason
from hiplan.planners import NoPlanner
from hiplan.planners.simple import renumber
from hiplan.prompts import BRIEF, KEEP
from hiplan.sampler import Job, Sampler
from hiplan.task import Task
from hiplan.trace import Episode, Kind


@dataclass(frozen=True)
class Mix:
    """Shares of the good strategies and of task kinds; frozen with tiny-v1."""

    complete: float = 0.4  # planners that plan all that is needed, against shallow plans
    renew: float = 0.5  # planners that revise to something new, against repeating
    follow: float = 0.5  # executors that follow the plan, against jumping to the end
    no_plan: float = 0.2  # episodes without a plan
    no_plan_good: float = 0.25  # of these, executors that work towards the goal
    broken: float = 0.02  # planners whose first text does not parse
    household: float = 0.5
    depths: tuple[float, ...] = (0.22, 0.36, 0.3, 0.12)  # crafting, by depth from 1
    many_places: float = 0.1  # household tasks with 6 to 8 places
    plan_only: float = 0.15  # documents that end with the first plan: many plans for few tokens
    recite: float = 0.0  # documents that say a recipe list again in another order: looking up, many times a row
    recite_lines: int = 7  # the most lines in such a list


def sample_task(rng: random.Random, mix: Mix) -> Task:
    """A task of the pretraining distribution."""
    seed = rng.randrange(2**40)
    if rng.random() < mix.household:
        kinds = ["put", "clean", "heat", "cool", "look", "two"]
        kind = rng.choices(kinds, (0.2, 0.2, 0.2, 0.2, 0.12, 0.08))[0]
        places = rng.randint(6, 8) if rng.random() < mix.many_places else rng.randint(3, 5)
        known: dict[str, JsonValue] = {"seed": seed, "kind": kind, "places": places, "clutter": rng.randint(0, 5)}
        return Task(env="household", params=known)
    depth = rng.choices(range(1, len(mix.depths) + 1), mix.depths)[0]
    params: dict[str, JsonValue] = {
        "seed": seed,
        "depth": depth,
        "crafts": rng.randint(depth, depth + 2),
        "width": rng.choice((2, 2, 3)),
        "distractors": rng.randint(0, 4),
    }
    return Task(env="crafting", params=params)


class DemoPlanner:
    """Writes what its strategy says, as a model would."""

    def __init__(self, env: Crafting | Household, rng: random.Random, mix: Mix) -> None:
        self.env, self.rng = env, rng
        self.complete = rng.random() < mix.complete
        self.renew = rng.random() < mix.renew
        self.broken = rng.random() < mix.broken

    def plan(self, episode: Episode) -> Effects[PlanRevision]:
        conversation = episode.conversation("planner")
        conversation.ask(BRIEF.planner_system, 0, author="system")
        conversation.ask(BRIEF.plan(episode), 0)
        plan = self._write()
        if self.broken:
            text = BRIEF.format.render(plan).replace(". ", " ") if self.rng.random() < 0.5 else plan.goal
            conversation.answer(text, "plan", 0, trained=False)
            try:
                BRIEF.format.parse(text)
            except Exception as error:
                conversation.ask(BRIEF.retry(str(error)), 0)
        self._answer(episode, plan, "plan")
        return PlanRevision(plan=plan)
        yield

    def revise(self, episode: Episode, reason: ReplanReason, done: tuple[int, ...]) -> Effects[PlanRevision]:
        episode.conversation("planner").ask(BRIEF.revise(episode, reason, done), len(episode.turns))
        current = episode.plan
        assert current is not None
        if reason.kind == "stuck" and self.complete:
            plan = None
        elif not self.renew:
            plan = None if self.rng.random() < 0.3 else current
        else:
            self.complete = self.complete or reason.kind == "used up" or isinstance(self.env, Crafting)
            plan = renumber(self._write(), current, done)
            same = [s.description for s in current.steps if s.id not in done] == [s.description for s in plan.steps]
            plan = None if same else plan
        self._answer(episode, plan, "revision")
        return PlanRevision(plan=plan)
        yield

    def _answer(self, episode: Episode, plan: Plan | None, kind: Kind) -> None:
        text = BRIEF.format.render(plan) if plan else KEEP
        episode.conversation("planner").answer(text, kind, len(episode.turns))

    def _write(self) -> Plan:
        full = self.env.oracle_plan()
        if self.complete:
            return full
        if isinstance(self.env, Household):
            steps = [s.description for s in full.steps]
            kept = [s for s in steps if s.split()[0] not in ("clean", "heat", "cool")]
            return Plan(goal=full.goal, steps=chain(kept or steps), rationale=full.rationale)
        return self._shallow(full)

    def _shallow(self, full: Plan) -> Plan:
        """The goal alone, or the goal and what its own recipe needs: fetches what must be made."""
        assert isinstance(self.env, Crafting)
        goal = self.env.goal
        top = {goal}
        if self.rng.random() < 0.4 and len(full.steps) > 2:
            top |= {item for item, _ in self.env.recipes[goal].needs}
        left = [s for s in full.steps if s.description.removeprefix("make ") in top]
        ids = {s.id: i + 1 for i, s in enumerate(left)}
        steps = tuple(
            PlanStep(id=ids[s.id], description=s.description, after=tuple(ids[a] for a in s.after if a in ids))
            for s in left
        )
        shown = [line for line in full.rationale.splitlines() if line.removeprefix("for ").split(":")[0] in top]
        return Plan(goal=full.goal, steps=steps, rationale="\n".join(shown))


class DemoExecutor:
    """Acts as its strategy says, one action per turn; where it begins to make something, it says its recipe first."""

    def __init__(self, env: Crafting | Household, rng: random.Random, mix: Mix, planned: bool) -> None:
        self.env, self.rng, self.planned = env, rng, planned
        self.good = rng.random() < (mix.follow if planned else mix.no_plan_good)
        self.wanted: list[str] = [env.goal] if isinstance(env, Crafting) else []
        self.thought = ""
        self.circle = rng.randint(1, 2)

    def act(self, episode: Episode, ready: tuple[int, ...]) -> Effects[str]:
        conversation = episode.conversation("executor")
        if not conversation.segments:
            conversation.ask(BRIEF.executor_system, 0, author="system")
        conversation.ask(BRIEF.act(episode), len(episode.turns))
        text = self._choose(episode, ready)
        conversation.answer(text, "action", len(episode.turns))
        return BRIEF.parse_action(text)
        yield

    def _choose(self, episode: Episode, ready: tuple[int, ...]) -> str:
        plan = episode.plan
        step = (plan.step(ready[0]) if ready and self.good else plan.steps[-1]) if plan else None
        if isinstance(self.env, Crafting):
            if step is None:
                return self._make(self._descend(episode, self.env), self.env)
            return self._make(step.description.removeprefix("make "), self.env, f"step {step.id} ")
        if step is not None or self.good:
            return self.env.oracle_action(step.description if step else None)
        return self._wander(self.env)

    def _make(self, item: str, env: Crafting, under: str = "") -> str:
        """Fetch the first thing that is missing, whether or not it can be fetched, then craft."""
        needs = env.recipes[item].needs
        missing = (f"get {count} {need}" for need, count in needs if env.inventory[need] < count)
        action = next(missing, str(env.recipes[item]))
        thought = f"{under}for {item}: {', '.join(f'{count} {need}' for need, count in needs)}"
        if thought == self.thought:
            return action
        self.thought = thought
        return f"{thought}\n{action}"

    def _descend(self, episode: Episode, env: Crafting) -> str:
        """Without a plan: what cannot be fetched must be made first; a bad executor never comes to that."""
        if episode.turns and self.good:
            last = episode.turns[-1]
            if last.refused:
                self.wanted.append(last.action.split(" ", 2)[2])
            elif last.action.startswith("craft"):
                self.wanted.pop()
        return self.wanted[-1]

    def _wander(self, env: Household) -> str:
        """Without a plan: look at the same few places again and again, and skip the treatment."""
        if env.hand:
            last = f"use {env.tool}" if env.kind == "look" else f"put {env.target} in {env._nearest_destination()}"
            return env.oracle_action(last)
        place = env.places[0] if env.at is None or env.at not in env.places else env.at
        lies = [n for n, p in sorted(env.where.items()) if p == env.at and n.rsplit(" ", 1)[0] == env.target]
        if env.at and env.at in env.open and lies and env.at in env.seen:
            return f"take {lies[0]} from {env.at}"
        if env.at == place and place not in env.open:
            return f"open {place}"
        listed = [p for p in env.all_places if p in env.places][: self.circle + 1]
        known = env.at == place and place in listed
        return f"go to {listed[(listed.index(place) + 1) % len(listed)] if known else listed[0]}"


def recital(rng: random.Random, most: int) -> Episode:
    """A recipe list of 2 to ``most`` lines, and the same recipes again in another order."""
    knobs = {"depth": 1, "width": 2 if most < 4 else 3, "distractors": rng.randint(1, most - 1)}
    task = Task(env="crafting", params={"seed": rng.randrange(2**40), **knobs})
    lines = make_env(task).reset(task).splitlines()[1:-1]
    episode = Episode(task, "\n".join(lines))
    conversation = episode.conversation("planner")
    conversation.ask(episode.observation, 0)
    rng.shuffle(lines)
    conversation.answer("\n".join(lines), "plan", 0)
    return episode


def demonstrate(seed: int, mix: Mix, task: Task | None = None) -> Episode:
    """One demonstration, decided by its seed alone."""
    rng = random.Random(seed)
    if task is None and rng.random() < mix.recite:
        return recital(rng, mix.recite_lines)
    task = task or sample_task(rng, mix)
    env = make_env(task)
    assert isinstance(env, Crafting | Household)
    env.reset(task)  # the roles look at it
    planned = rng.random() >= mix.no_plan

    planner = DemoPlanner(env, rng, mix) if planned else NoPlanner()
    limits = Limits(turns=0) if planned and rng.random() < mix.plan_only else Limits()
    job = Job(task, planner, DemoExecutor(env, rng, mix, planned))
    episode = Sampler(ScriptedModel([]), lambda _: env, limits=limits).run([job])[0]
    if episode.error:
        raise RuntimeError(f"demonstration {seed} failed: {episode.error}")
    return episode
