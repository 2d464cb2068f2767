"""What happens to sequences that are too long: the row is refused, whole turns are left out, or the end is cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tuneloop.core.conversation import Message
from tuneloop.render.rendered import Rendered, Unrenderable


def too_long(tokens: int, max_length: int) -> Unrenderable:
    """The reason why a row of so many tokens is not trained on."""
    return Unrenderable(
        f"longer than max_length {max_length} tokens; raise it, or allow `overlong: drop_turns` or `truncate`",
        {"tokens": tokens, "max_length": max_length},
    )


def truncate(rendered: Rendered, max_length: int) -> Rendered:
    """The first `max_length` tokens, with the number of those that were cut."""
    cut = max(0, len(rendered) - max_length)
    return replace(rendered, ids=rendered.ids[:max_length], weights=rendered.weights[:max_length], cut_tokens=cut)


def fit(messages: Sequence[Message], max_length: int, length: Callable[[list[int]], int]) -> list[int]:
    """Indices of the messages to keep so that `length` of them fits and the last one stays.

    A group is a user message with all that follows up to the next one. What stands before the first group stays;
    groups go in this order: the second, the third, … the last but one, and then the first.
    Raises Unrenderable when the last group alone is too long.
    """
    begins = [index for index, message in enumerate(messages) if message.role == "user"]
    groups = [list(range(a, b)) for a, b in zip(begins, [*begins[1:], len(messages)], strict=True)]
    lead = list(range(begins[0] if begins else len(messages)))
    droppable = [*groups[1:-1], *groups[:1]] if len(groups) > 1 else []

    def kept(count: int) -> list[int]:
        gone = {index for group in droppable[:count] for index in group}
        return [*lead, *(index for group in groups for index in group if index not in gone)]

    shortest = length(kept(len(droppable)))
    if shortest > max_length:
        raise too_long(shortest, max_length)
    low, high = 0, len(droppable)  # the fewest groups that must go; length falls as they go
    while low < high:
        middle = (low + high) // 2
        if length(kept(middle)) <= max_length:
            high = middle
        else:
            low = middle + 1
    return kept(low)
