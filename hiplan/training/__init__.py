"""Training: rewards, advantages, losses, warm start, the progressive trainer, checkpoints."""
