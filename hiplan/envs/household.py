"""Household in ALFWorld's grammar: find an object, maybe clean, heat or cool it, put it somewhere.

The agent learns where an object is by going to a place (and opening it). So the places a plan guesses at first are
often wrong, and the plan must be revised. One object can be carried at a time. The reward is 1 when the goal holds.

Task parameters: those of ``houses.Knobs``. Plan steps read ``find apple at cabinet 1``,
``clean apple at sink 1``, ``put apple in drawer 2``, ``use lamp 1``.
"""

from __future__ import annotations

import re
from collections.abc import Hashable

from hiplan.envs.houses import OPENABLE, TOOLS, build_house
from hiplan.plan import Plan, PlanStep, StepStatus
from hiplan.task import StepResult, Task

DONE_WORD = {"clean": "clean", "heat": "hot", "cool": "cool"}
ROOMS = ("kitchen", "hall", "bedroom", "study")

_GO = re.compile(r"^go to (.+)$")
_OPEN = re.compile(r"^(open|close) (.+)$")
_TAKE = re.compile(r"^take (.+?) from (.+)$")
_MOVE = re.compile(r"^(?:move (.+?) to|put (.+?) (?:in/on|in|on)) (.+)$")
_TREAT = re.compile(r"^(clean|heat|cool) (.+?) with (.+)$")
_USE = re.compile(r"^use (.+)$")

_STEP_FIND = re.compile(r"^find (.+?) at (.+)$")
_STEP_TREAT = re.compile(r"^(clean|heat|cool) (.+?) at (.+)$")
_STEP_PUT = re.compile(r"^put (.+?) in (.+)$")


class Household:
    """Implements ``Environment``, ``Oracle`` and ``PlanAware``."""

    def __init__(self, task: Task) -> None:
        """Does nothing: ``reset`` sets the task up."""

    def reset(self, task: Task) -> str:
        house = build_house(task)
        self.kind, self.target, self.names = house.kind, house.target, house.names
        self.places, self.all_places = house.places, house.all_places
        self.tool, self.destination = house.tool, house.destination
        self.where = dict(house.where)
        self.open = {p for p in self.all_places if p.split()[0] not in OPENABLE}
        self.seen: set[str] = set()  # places whose content the agent has seen
        self.treated: set[str] = set()
        self.used: set[str] = set()
        self.at: str | None = None
        self.hand: str | None = None
        self.found: list[str] = []
        self._won = False
        return self._first_observation(house.rooms)

    def _first_observation(self, rooms: int) -> str:
        per_room = -(-len(self.all_places) // rooms)
        lines = [
            f"{ROOMS[i].capitalize()}: {', '.join(self.all_places[i * per_room : (i + 1) * per_room])}."
            for i in range(rooms)
            if self.all_places[i * per_room : (i + 1) * per_room]
        ]
        return "\n".join([*lines, f"Goal: {self.goal()}."])

    def goal(self) -> str:
        """The task in words, as the first observation states it."""
        if self.kind == "look":
            return f"look at {self.target} under lamp"
        if self.kind == "two":
            return f"put two {self.target} in {self.destination}"
        state = f"{DONE_WORD[self.kind]} " if self.kind in DONE_WORD else ""
        return f"put {state}{self.target} in {self.destination}"

    # -- engine ------------------------------------------------------------------------------

    def step(self, action: str) -> StepResult:
        text = " ".join(action.split())
        said = None if self._won or text != action.strip() else self._act(text)
        if said is None:
            return StepResult("Nothing happens.", refused=True)
        self._won = self._goal_holds()
        return StepResult(said, reward=float(self._won), terminated=self._won)

    def _act(self, text: str) -> str | None:
        """Carries the action out and returns the observation; ``None`` where nothing happens."""
        if text == "look":
            return self._look() if self.at else self._first_observation(1)
        if text == "inventory":
            return f"You carry {self.hand}." if self.hand else "You carry nothing."
        if match := _GO.match(text):
            return self._go(match[1])
        if match := _OPEN.match(text):
            return self._open(match[2], opening=match[1] == "open")
        if match := _TAKE.match(text):
            return self._take(match[1], match[2])
        if match := _MOVE.match(text):
            return self._move(match[1] or match[2], match[3])
        if match := _TREAT.match(text):
            return self._treat(match[1], match[2], match[3])
        if match := _USE.match(text):
            return self._use(match[1])
        return None

    def _go(self, place: str) -> str | None:
        if place not in self.all_places or place == self.at:
            return None
        self.at = place
        if place in self.open:
            return f"You arrive at {place}. {self._look()}"
        return f"You arrive at {place}. It is closed."

    def _look(self) -> str:
        assert self.at is not None
        if self.at not in self.open:
            return "It is closed."
        self.seen.add(self.at)
        here = sorted(name for name, place in self.where.items() if place == self.at)
        return f"You see {', '.join(here)}." if here else "You see nothing."

    def _open(self, place: str, opening: bool) -> str | None:
        if place != self.at or place.split()[0] not in OPENABLE or (place in self.open) == opening:
            return None
        if not opening:
            self.open.discard(place)
            return f"You close {place}."
        self.open.add(place)
        return f"You open {place}. {self._look()}"

    def _take(self, name: str, place: str) -> str | None:
        if self.hand or place != self.at or place not in self.open or self.where.get(name) != place:
            return None
        del self.where[name]
        self.hand = name
        if name in self.names and name not in self.found:
            self.found.append(name)
        return f"You take {name} from {place}."

    def _move(self, name: str, place: str) -> str | None:
        if self.hand != name or place != self.at or place not in self.open:
            return None
        self.hand = None
        self.where[name] = place
        return f"You move {name} to {place}."

    def _treat(self, how: str, name: str, tool: str) -> str | None:
        if self.hand != name or tool != self.at or tool.split()[0] != TOOLS[how]:
            return None
        self.treated.add(f"{how} {name}")
        return f"You {how} {name} with {tool}."

    def _use(self, tool: str) -> str | None:
        if tool != self.at or tool.split()[0] != "lamp":
            return None
        if self.hand:
            self.used.add(self.hand)
        return f"You use {tool}."

    def _goal_holds(self) -> bool:
        if self.kind == "look":
            return any(name in self.used for name in self.names)
        return all(self._finished(name) for name in self.names)

    def _finished(self, name: str) -> bool:
        treated = self.kind not in TOOLS or f"{self.kind} {name}" in self.treated
        return treated and self._delivered(name)

    def _delivered(self, name: str) -> bool:
        return self.where.get(name, "").split(" ")[0] == self.destination

    def state_key(self) -> Hashable:
        return (
            self.at,
            self.hand,
            tuple(sorted(self.where.items())),
            tuple(sorted(self.open)),
            tuple(sorted(self.treated | self.used)),
            self._won,
        )

    def close(self) -> None:
        pass

    # -- oracle ------------------------------------------------------------------------------

    def known_place(self, name_or_kind: str) -> str | None:
        """A place where the agent has seen such an object, leaving out those the goal is done with."""
        for name, place in sorted(self.where.items()):
            wanted = name_or_kind in (name, name.rsplit(" ", 1)[0])
            if wanted and place in self.seen and not (name in self.names and self._finished(name)):
                return place
        return None

    def unseen(self) -> list[str]:
        """Places whose content the agent has not seen, in the order of the first observation."""
        return [p for p in self.all_places if p in self.places and p not in self.seen]

    def oracle_plan(self) -> Plan:
        """The steps that are left. For an object whose place the agent does not know, guesses the first unseen place.

        With a guess, the rationale lists the unseen places.
        """
        steps: list[str] = []
        guesses = self.unseen()
        left = len(guesses)
        for name in self.names:
            if self._finished(name):
                continue
            thing = name.rsplit(" ", 1)[0]
            if self.hand != name:
                if self.hand and self.hand in self.names:
                    continue
                place = self.known_place(thing) if not steps else None
                place = place or (guesses.pop(0) if guesses else self.places[0])
                steps.append(f"find {thing} at {place}")
            if self.tool and self.kind in TOOLS and f"{self.kind} {name}" not in self.treated:
                steps.append(f"{self.kind} {thing} at {self.tool}")
            steps.append(f"use {self.tool}" if self.kind == "look" else f"put {thing} in {self._nearest_destination()}")
        if not steps:
            steps.append(f"find {self.target} at {(guesses or self.places)[0]}")
        rationale = f"not seen: {', '.join(self.unseen())}" if len(guesses) < left else ""
        return Plan(goal=self.goal(), steps=chain(steps), rationale=rationale)

    def _nearest_destination(self) -> str:
        return next(p for p in self.places if p.split()[0] == self.destination)

    def oracle_action(self, step: str | None) -> str:
        """The next action for the step, or for the first step of the oracle's plan."""
        if self.hand and self.hand not in self.names and self.at in self.open:
            return f"move {self.hand} to {self.at}"
        text = step if step is not None else self.oracle_plan().steps[0].description
        if match := _STEP_FIND.match(text):
            thing, place = match[1], match[2]
            if self.at == place and place in self.open:
                here = [n for n, p in sorted(self.where.items()) if p == place and n.rsplit(" ", 1)[0] == thing]
                return f"take {here[0]} from {place}" if here else "look"
            return self._approach(place)
        if match := _STEP_TREAT.match(text):
            return f"{match[1]} {self.hand or match[2]} with {match[3]}" if self.at == match[3] else f"go to {match[3]}"
        if match := _STEP_PUT.match(text):
            ready = self.at == match[2] and match[2] in self.open
            return f"move {self.hand or match[1]} to {match[2]}" if ready else self._approach(match[2])
        if match := _USE.match(text):
            return text if self.at == match[1] else f"go to {match[1]}"
        return "look"

    def _approach(self, place: str) -> str:
        return f"go to {place}" if self.at != place else f"open {place}"

    # -- plan awareness ----------------------------------------------------------------------

    def subgoals(self) -> dict[str, tuple[str, ...]]:
        order = ("find", *((self.kind,) if self.kind in TOOLS else ()), "use" if self.kind == "look" else "put")
        return {goal: order[:i][-1:] for i, goal in enumerate(order)}

    def subgoal_of(self, step: str) -> str | None:
        text = step.strip().rstrip(".")
        if match := _STEP_FIND.match(text):
            return "find" if match[2] in self.places and match[1] == self.target else None
        if match := _STEP_TREAT.match(text):
            right = match[3] == self.tool and match[2] == self.target and match[3].split()[0] == TOOLS[match[1]]
            return match[1] if right else None
        if match := _STEP_PUT.match(text):
            right = match[2] in self.places and match[2].split()[0] == self.destination and match[1] == self.target
            return "put" if right else None
        if match := _USE.match(text):
            return "use" if match[1] == self.tool else None
        return None

    def step_status(self, step: str) -> StepStatus:
        text = step.strip().rstrip(".")
        if match := _STEP_FIND.match(text):
            if self.hand and self.hand.rsplit(" ", 1)[0] == match[1]:
                return StepStatus.DONE
            there = any(p == match[2] and n.rsplit(" ", 1)[0] == match[1] for n, p in self.where.items())
            return StepStatus.FAILED if match[2] in self.seen and not there else StepStatus.OPEN
        if match := _STEP_TREAT.match(text):
            done = any(entry.startswith(f"{match[1]} {match[2]} ") for entry in self.treated)
            return StepStatus.DONE if done else StepStatus.OPEN
        if match := _STEP_PUT.match(text):
            found = [n for n in self.found if n.rsplit(" ", 1)[0] == match[1]]
            done = bool(found) and all(self.where.get(n) == match[2] for n in found)
            return StepStatus.DONE if done else StepStatus.OPEN
        if match := _USE.match(text):
            return StepStatus.DONE if self.used else StepStatus.OPEN
        return StepStatus.OPEN

    def serves(self, step: str, action: str) -> bool:
        text, said = step.strip().rstrip("."), " ".join(action.split())
        if match := _STEP_FIND.match(text):
            took = _TAKE.match(said)
            if took:
                return took[2] == match[2] and took[1].rsplit(" ", 1)[0] == match[1]
            return said in (f"go to {match[2]}", f"open {match[2]}", "look")
        if match := _STEP_TREAT.match(text):
            did = _TREAT.match(said)
            if did:
                return did[1] == match[1] and did[3] == match[3] and did[2].rsplit(" ", 1)[0] == match[2]
            return said in (f"go to {match[3]}", f"open {match[3]}")
        if match := _STEP_PUT.match(text):
            moved = _MOVE.match(said)
            if moved:
                return moved[3] == match[2] and (moved[1] or moved[2]).rsplit(" ", 1)[0] == match[1]
            return said in (f"go to {match[2]}", f"open {match[2]}")
        if match := _USE.match(text):
            return said in (text, f"go to {match[1]}")
        return False


def chain(descriptions: list[str], first_id: int = 1) -> tuple[PlanStep, ...]:
    """Steps that each depend on the one before."""
    return tuple(
        PlanStep(id=first_id + i, description=text, after=(first_id + i - 1,) if i else ())
        for i, text in enumerate(descriptions)
    )
