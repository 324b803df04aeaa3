"""The recipe of tiny-v1 is frozen: its demonstrations are those that the shipped weights were trained on."""

import hashlib
import json

from experiments.tiny.demos import Mix, demonstrate

SHA = "af2a6fe79bb7c744"


def test_the_demonstrations_are_those_of_the_shipped_model() -> None:
    digest = hashlib.sha256()
    for seed in range(60):
        episode = demonstrate(seed, Mix())
        talks = [[(s.author, s.text, s.kind, s.turn) for s in c.segments] for c in episode.conversations.values()]
        turns = [[t.action, t.observation, t.reward, t.refused] for t in episode.turns]
        digest.update(json.dumps([talks, turns]).encode())
    assert digest.hexdigest()[:16] == SHA
