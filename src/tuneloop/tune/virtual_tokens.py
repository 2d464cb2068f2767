"""The real tokens that virtual ones start as: a text's, or random ones of the vocabulary."""

from __future__ import annotations

import numpy as np

from tuneloop.core.errors import ModelError
from tuneloop.tune.methods import Setting


def first_ids(count: int, text: str | None, setting: Setting, method: str) -> list[int]:
    """`count` token ids: of `text`, said again and again to fill them, or drawn from the vocabulary by the seed.

    Raises ModelError where the text has more tokens than there are virtual ones.
    """
    tokenizer = setting.tokenizer
    if text is None:
        special = set(tokenizer.all_special_ids)
        known = [id for id in sorted(tokenizer.get_vocab().values()) if id not in special]
        return np.random.default_rng(setting.seed).choice(known, count, replace=count > len(known)).tolist()
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if not 0 < len(ids) <= count:
        raise ModelError(
            f"tune.method.{method}.text has {len(ids)} tokens and tokens is {count}: write tokens: {max(len(ids), 1)} "
            f"or more (a shorter text is repeated), or another text"
        )
    return [ids[place % len(ids)] for place in range(count)]
