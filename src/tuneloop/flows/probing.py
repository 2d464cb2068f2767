"""How many facts a base completes in prose: the score of its probes."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tuneloop.evaluate.contestant import answers
from tuneloop.evaluate.probes import read_probes
from tuneloop.evaluate.recall import is_right
from tuneloop.flows.contestants import entrant
from tuneloop.generate.engine import Decoding
from tuneloop.models.config import ModelConfig

MAX_NEW_TOKENS = 24


def completed(base: str) -> dict[str, Any]:
    """{"right", "n", "kinds": {"kind.language": [right, n]}} of greedy completions."""
    probes = read_probes("embedded")
    with entrant(ModelConfig(base=base), seed=0)() as contestant:
        given = answers(contestant, probes, Decoding(MAX_NEW_TOKENS))
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for probe, answer in zip(probes, given, strict=True):
        kind = f"{probe.meta['kind']}.{probe.meta['language']}"
        asked[kind] += 1
        right[kind] += answer.text is not None and is_right(answer.text, probe.answer.content)
    kinds = {kind: [right[kind], asked[kind]] for kind in sorted(asked)}
    return {"right": sum(right.values()), "n": len(probes), "kinds": kinds}
