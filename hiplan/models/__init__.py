"""Models: behind an endpoint (``api``), and local ones on transformers and peft, which need ``hiplan[train]``."""
