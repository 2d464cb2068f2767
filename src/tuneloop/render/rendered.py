"""What rendering gives: ids with their loss weights, or the reason why a conversation has none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuneloop.core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Rendered:
    """One training sequence.

    `ids` [T] int32 and `weights` [T] float32; weights[t] is the loss weight of ids[t] as a target, so weights[0] is
    always 0. `example` is the id of the Example. An Example whose template strips earlier reasoning gives several
    sequences, but each supervised turn is a target in exactly one of them.
    """

    ids: NDArray[np.int32]
    weights: NDArray[np.float32]
    example: str
    left_out_messages: int = 0
    """Messages that `overlong: drop_turns` took out of the middle."""
    cut_tokens: int = 0
    """Tokens that `overlong: truncate` cut off the end."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def supervised(self) -> int:
        """The number of tokens with a weight above 0."""
        import numpy as np

        return int(np.count_nonzero(self.weights > 0))


class Unrenderable(DataError):
    """A conversation that gives no training sequence; `evidence` is JSON."""

    def __init__(self, reason: str, evidence: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.evidence: dict[str, Any] = evidence or {}
