"""The audit: what a person should know about the data before training on it, one file a question.

`audit` makes card.json from Facts; `to_markdown` and `to_html` show a card, also one read back from its file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuneloop.core.conversation import JsonObject

if TYPE_CHECKING:
    from tuneloop.data.facts import Facts


def audit(facts: Facts) -> JsonObject:
    """card.json: version, rows, splits, findings, sources, and a section under the name of each question."""
    from tuneloop.data.audit.card import card

    return card(facts)


def to_markdown(card: JsonObject) -> str:
    """card.md."""
    from tuneloop.data.audit.text import markdown

    return markdown(card)


def to_html(card: JsonObject, title: str) -> str:
    """card.html: one self-contained page, drawings included, nothing from elsewhere."""
    from tuneloop.data.audit.page import html

    return html(card, title)
