"""Which Example is trained on, watched and tested on. Knows nothing of files.

An Example's place is u = (first 8 bytes of SHA-256 of its normalised prompt) / 2^64, uniform in [0, 1): test where
u < test share, val where u < test + val share, else train. So equal prompts stay together, a place does not depend on
other rows nor on the seed, and the shares hold on average, not to the row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from tuneloop.core.conversation import Drop, Example
from tuneloop.data.config import SplitConfig
from tuneloop.data.words import content_key, prompt_key

STEP = "split"


@dataclass
class Splits:
    """The Examples of each split in the order of the sources, and what had to leave."""

    train: list[Example] = field(default_factory=list[Example])
    val: list[Example] = field(default_factory=list[Example])
    test: list[Example] = field(default_factory=list[Example])
    drops: list[Drop] = field(default_factory=list[Drop])


def place(example: Example) -> float:
    """The Example's place in [0, 1); the same for Examples with the same prompt."""
    return int.from_bytes(hashlib.sha256(prompt_key(example)).digest()[:8]) / 2**64


def split(
    examples: Sequence[Example],
    shares: SplitConfig,
    own_val: Sequence[Example] | None = None,
    own_test: Sequence[Example] | None = None,
) -> Splits:
    """Divides the sources; splits with own files get no share, and what stands in them leaves the other splits.

    test keeps all it was given; val leaves out what is in test; train what is in val or test (compared by content).
    """
    test_share = shares.test if own_test is None else 0.0
    val_share = shares.val if own_val is None else 0.0
    out = Splits(val=list(own_val or ()), test=list(own_test or ()))
    for example in examples:
        u = place(example)
        (out.test if u < test_share else out.val if u < test_share + val_share else out.train).append(example)
    if own_test is not None:
        out.val = _without(out.val, out.test, "test", out.drops)
        out.train = _without(out.train, out.test, "test", out.drops)
    if own_val is not None:
        out.train = _without(out.train, out.val, "val", out.drops)
        if own_test is None:  # the file is given, the share is ours: the share yields
            out.test = _without(out.test, out.val, "val", out.drops)
    return out


def _without(examples: list[Example], others: list[Example], name: str, drops: list[Drop]) -> list[Example]:
    there: dict[bytes, Example] = {}
    for example in others:
        there.setdefault(content_key(example), example)
    kept: list[Example] = []
    for example in examples:
        same = there.get(content_key(example))
        if same is None:
            kept.append(example)
        else:
            evidence = {"same": same.id, "origin": same.origin.to_json()}
            drops.append(Drop(example, STEP, f"also in {name}", example.origin, evidence))
    return kept
