"""Planners: who writes and revises the plan.

A planner is anything with ``plan(episode)`` and ``revise(episode, reason, done)``, both generators that ask
their driver for what they need (see ``hiplan.effects``) and return a ``PlanRevision``.
"""

from hiplan.planners.base import PlannerProtocol
from hiplan.planners.llm import Planner
from hiplan.planners.simple import FixedPlanner, GivenPlans, NoPlanner, OraclePlanner, WrittenPlanner

__all__ = ["FixedPlanner", "GivenPlans", "NoPlanner", "OraclePlanner", "Planner", "PlannerProtocol", "WrittenPlanner"]
