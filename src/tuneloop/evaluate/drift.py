"""How far a tuned model's next-token distributions moved from the base's on neutral prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuneloop.evaluate.scoring import NOTHING
from tuneloop.stats import bootstrap, intervals

if TYPE_CHECKING:
    from tuneloop.evaluate.forgetting import Probed

SIGNATURE = "kl|tuned_to_base|every_position|whole_vocabulary|nats_per_token|v1"


@dataclass(frozen=True)
class Drift:
    """KL(new ‖ old): of each prompt the sum in nats and its positions."""

    parts: Sequence[tuple[float, int]]
    why: str = ""
    """Why it could not be measured."""

    @classmethod
    def between(cls, new: Probed, old: Probed, prompts: int) -> Drift:
        """Of two models that were asked the same."""
        from tuneloop.forward.distributions import divergences

        if new.distributions is None or old.distributions is None:
            return cls((), new.why or old.why or "not measured")
        return cls(divergences(new.distributions, old.distributions))

    def to_json(self, confidence: float) -> dict[str, Any]:
        """Nats per token with its interval over prompts."""
        out: dict[str, Any] = {"better": "lower", "signature": SIGNATURE, "unit": "nats per token"}
        if not self.parts:
            return {**out, **NOTHING, "tokens": 0, "why": self.why}
        import numpy as np

        sums, tokens = [total for total, _ in self.parts], [count for _, count in self.parts]
        low, high = intervals.bootstrap_sums(np.array(self.parts, np.float64), bootstrap.ratio, confidence)
        value = sum(sums) / sum(tokens)
        return {**out, "value": value, "n": len(tokens), "low": low, "high": high, "tokens": sum(tokens)}
