"""Models that need ``hiplan[train]``: the local model on transformers and peft. Imported on demand."""
