"""Runs and studies behind the commands: settings, the main job, evaluation, diagnostics, plan data, export."""
