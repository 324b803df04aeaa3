"""Settings for the whole suite: no network, no telemetry, one thread (also in subprocesses), repeatable examples."""

import os

# Before any test module imports transformers or torch, which read these once.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",  # torch's intra-op threads; two on two busy cores are far slower than one, and sums differ
)

from hypothesis import settings

settings.register_profile("hiplan", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("hiplan")
