"""Thumbs, and a better answer with a comment, under an answer. Knows nothing of where verdicts go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Literal, Protocol

from nicegui import ui

from tuneloop.web.talk import Verdict


class Rated(Protocol):
    """An answer and what was said about it so far."""

    text: str
    verdict: Verdict | None


def buttons(
    turn: Rated,
    say: Callable[[str], str],
    icon: Callable[..., ui.button],
    keep: Callable[[Verdict], Awaitable[bool]],
) -> None:
    """Two thumbs and a pencil. `keep` returns whether the verdict was stored."""

    async def vote(thumb: Literal[-1, 1]) -> None:
        if await keep(replace(turn.verdict or Verdict(thumb), thumb=thumb)):
            show()

    good = icon("thumb_up_off_alt", "good", lambda: vote(1))
    bad = icon("thumb_down_off_alt", "bad", lambda: vote(-1))
    pencil = icon("edit", "correct", lambda: _correct(turn, say, keep, show))

    def show() -> None:
        thumb = turn.verdict.thumb if turn.verdict else 0
        corrected = bool(turn.verdict and turn.verdict.corrected)
        _press(good, thumb == 1, "thumb_up", "thumb_up_off_alt")
        _press(bad, thumb == -1, "thumb_down", "thumb_down_off_alt")
        _press(pencil, corrected, "edit_note", "edit")

    show()


def _press(button: Any, pressed: bool, on: str, off: str) -> None:
    button.props(f"icon={on if pressed else off} aria-pressed={str(pressed).lower()}")
    button.classes(**{"add" if pressed else "remove": "tl-pressed"})


def _correct(
    turn: Rated, say: Callable[[str], str], keep: Callable[[Verdict], Awaitable[bool]], show: Callable[[], None]
) -> None:
    """Opens the form for a better answer. Kept without a thumb before, it counts as a thumb down."""
    before = turn.verdict or Verdict(-1)
    with ui.dialog() as dialog, ui.card().classes("tl-card"):
        better = ui.textarea(say("better"), value=before.corrected or turn.text).props("outlined autogrow autofocus")
        comment = ui.textarea(say("why"), value=before.comment).props("outlined autogrow")

        async def save() -> None:
            written = (better.value or "").strip()
            corrected = written if written != turn.text.strip() else ""
            if await keep(Verdict(before.thumb, corrected, comment.value or "")):
                dialog.close()
                show()

        with ui.row().classes("tl-right"):
            ui.button(say("cancel"), on_click=dialog.close, color=None).props("flat no-caps")
            ui.button(say("save"), on_click=save, color=None).props("unelevated no-caps").classes("tl-main")
    dialog.on("hide", dialog.delete)
    dialog.open()
