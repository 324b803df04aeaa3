"""Executors: who acts, one action per turn, under the plan in force.

An executor is anything with ``act(episode)``, a generator that asks its driver for what it needs
(see ``hiplan.effects``) and returns the action's text.
"""

from hiplan.executors.base import ExecutorProtocol
from hiplan.executors.llm import Executor
from hiplan.executors.simple import OracleExecutor, ScriptedExecutor, WrittenExecutor

__all__ = ["Executor", "ExecutorProtocol", "OracleExecutor", "ScriptedExecutor", "WrittenExecutor"]
