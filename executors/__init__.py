"""Executors write one action per turn under the plan in force.

An executor is any object with ``act(episode, ready)``, a generator that yields effects (``hiplan.effects``) and returns
the text of the action.
"""

from hiplan.executors.base import ExecutorProtocol
from hiplan.executors.llm import Executor
from hiplan.executors.simple import OracleExecutor, ScriptedExecutor, WrittenExecutor

__all__ = ["Executor", "ExecutorProtocol", "OracleExecutor", "ScriptedExecutor", "WrittenExecutor"]
