"""bits_per_byte: how many bits the model needs for a byte of the reference; compares across tokenizers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tuneloop.evaluate.metrics import Metric, Observation, Score

if TYPE_CHECKING:
    from tuneloop.evaluate.metrics import Array


class BitsPerByte(Metric):
    """Σ negative log-likelihood / (ln 2 · Σ UTF-8 bytes) of the supervised texts (Gao et al. 2020, arXiv 2101.00027).

    Unlike perplexities, it compares models with different tokenizers on the same texts. The stop token's bits count,
    as it is trained. A Chinese character has three bytes: compare within a language. Texts that are supervised in part
    (weights between 0 and 1) or call tools are unscored, because their bytes are not known.
    """

    BETTER = "lower"
    NEEDS = "likelihood"
    AGGREGATION = "corpus"
    BOUNDED = False

    @property
    def signature(self) -> str:
        return "bits_per_byte|supervised_texts|utf8|byte_weighted|stop_token:yes|v1"

    def score(self, observation: Observation) -> Score:
        if not observation.reference:
            return Score(None, "no reference text (a tool call or an empty answer)")
        if observation.nll is None or not observation.tokens:
            return Score(None, "no supervised tokens")
        if not math.isfinite(observation.nll):
            return Score(None, "the model gives the reference a likelihood of zero or none at all")
        spoken = [message for message in observation.prompt if message.weight]
        given = [observation.expected] if observation.expected is not None else []
        if any(message.weight != 1 or message.tool_calls for message in (*spoken, *given)):
            return Score(None, "a tool call or a text that is supervised in part: its bytes are not known")
        texts = [(message.reasoning or "") + message.content for message in (*spoken, *given)]
        size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts or [observation.reference])
        bits = observation.nll / math.log(2)
        return Score(bits / size, statistics=(bits, float(size)))

    def combine(self, sums_RS: Array) -> Array:
        from tuneloop.stats.bootstrap import ratio

        return ratio(sums_RS)
