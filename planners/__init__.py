"""Planners write and revise the plan.

A planner is any object with ``plan(episode)`` and ``revise(episode, reason, done)``, both generators that yield effects
(``hiplan.effects``) and return a ``PlanRevision``.
"""

from hiplan.planners.base import PlannerProtocol
from hiplan.planners.llm import Planner
from hiplan.planners.simple import FixedPlanner, GivenPlans, NoPlanner, OraclePlanner, WrittenPlanner

__all__ = ["FixedPlanner", "GivenPlans", "NoPlanner", "OraclePlanner", "Planner", "PlannerProtocol", "WrittenPlanner"]
