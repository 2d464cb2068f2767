"""Talking to a model in the terminal, prompted exactly as it was trained."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from tuneloop.core.conversation import Message
from tuneloop.core.errors import RunError
from tuneloop.core.runs import resolve
from tuneloop.evaluate.contestant import Contestant
from tuneloop.flows.contestants import entrant
from tuneloop.generate.engine import Decoding, Request
from tuneloop.models.config import ModelConfig
from tuneloop.track import console


def chat(model: str, root: Path, messages: Sequence[str], system: str | None, max_new_tokens: int) -> list[str]:
    """Answers the given messages as one conversation, or asks for them on the terminal; returns the answers."""
    with ExitStack() as stack:
        with console.waiting(f"loading {model}"):
            contestant = stack.enter_context(entrant(ModelConfig(base=named(model, root)), seed=0)())
        history = [Message("system", system)] if system else []
        answers: list[str] = []
        for text in messages or _typed():
            history.append(Message("user", text))
            with console.waiting("answering"):
                answers.append(_answer(contestant, history, max_new_tokens))
            history.append(Message("assistant", answers[-1]))
            print(_printable(answers[-1]) if sys.stdout.isatty() else answers[-1], flush=True)
        return answers


def _answer(contestant: Contestant, history: Sequence[Message], max_new_tokens: int) -> str:
    (completion,) = contestant.engine.answer([Request(tuple(history))], Decoding(max_new_tokens))
    if completion.refused:
        raise RunError(f"the model cannot answer: {completion.refused}")
    return completion.text


def _printable(text: str) -> str:
    """Without control characters: a model must not steer the terminal (escape sequences)."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")


def _typed() -> Iterator[str]:
    """Lines from the terminal until ^D or an empty line; without a terminal, the lines of stdin."""
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin if line.strip())
        return
    console.say("[dim]an empty line or ^D ends the chat[/]")
    while True:
        try:
            text = console.console().input("[bold cyan]you[/] ").strip()
        except EOFError:
            return
        if not text:
            return
        yield text


def named(model: str, root: Path) -> str:
    """A run's folder where the name fits a run, else the name of a base."""
    try:
        return str(resolve(root, model, stage="tune", done=True).path)
    except RunError:
        if root.is_dir() and any(model in path.name for path in root.iterdir()):
            raise  # it was meant as a run
        return model
