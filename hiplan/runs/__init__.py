"""Whole runs: their settings, the main job, measuring, diagnosing, plan data, and what leaves a run."""
