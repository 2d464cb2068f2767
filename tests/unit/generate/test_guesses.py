"""Guessed tokens change nothing but the number of passes: the answers, their samples and what is told of them stay."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import PACKED
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import random_lora

from tuneloop.core.conversation import Message
from tuneloop.generate import batching, compiled, slots
from tuneloop.generate.batching import ContinuousEngine
from tuneloop.generate.engine import Decoding, Request
from tuneloop.generate.guesses import FIRST, LENGTHS, MOST, Guesses
from tuneloop.generate.live import Ask, Piece
from tuneloop.generate.queue import Limits
from tuneloop.generate.slots import Slots
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import find_base
from tuneloop.models.load import load_model
from tuneloop.render.load import renderer_of

BASE = find_base(ModelConfig(base="embedded"))
RENDERER = renderer_of(BASE)
REPEATING = "Tell me something, tell me something, tell me something"
"""To which the embedded base says the same thing over and over."""


def load() -> Any:
    return load_model(BASE, torch.float32, seed=0, device="cpu").eval()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter") / "v1"
    random_lora(folder, load(), 3)
    return folder


# -- what is guessed --------------------------------------------------------------------------------------------------
def test_what_followed_the_longest_match_is_guessed() -> None:
    guesses = Guesses([1, 2, 3, 4, 5, 9, 2, 3, 7, 7, 1, 2])
    assert guesses.next([3], 15) == [4, 5, 9, 2], "after 1 2 3, though 2 3 came later with 7"
    assert guesses.next([3], 2) == [4, 5]
    assert guesses.next([3, 8], 15) == []
    assert guesses.next([3, 8, 2, 3], 15) == [8, 2, 3], "after 2 3 the last time"
    assert guesses.next([3, 8, 2, 3, 7, 7], 15) == [1, 2, 3, 8]


def test_right_guesses_grow_and_wrong_ones_shrink() -> None:
    guesses = Guesses(list(range(100, 140)) * 2)
    assert len(guesses.next([100, 101], 99)) == FIRST
    guesses.checked(4, 4)
    assert len(guesses.next([100, 101], 99)) == 9
    for _ in range(3):
        guesses.checked(9, 9)
    assert len(guesses.next([100, 101], 99)) == MOST
    guesses.checked(15, 3)
    assert len(guesses.next([100, 101], 99)) == 3
    guesses.checked(3, 0)
    assert len(guesses.next([100, 101], 99)) == 1


@settings(max_examples=100, deadline=None)
@given(
    prompt=st.lists(st.integers(0, 3), max_size=30),
    answer=st.lists(st.integers(0, 3), max_size=30),
    most=st.integers(1, 20),
    seen=st.integers(0, 30),
)
def test_a_guess_always_stood_after_the_same_tokens(prompt: list[int], answer: list[int], most: int, seen: int) -> None:
    guesses, tokens = Guesses(prompt), prompt + answer
    guesses.next(answer[:seen], most)  # asked before, or not: the same
    found = guesses.next(answer, most)
    assert found == Guesses(tokens).next([], most) and len(found) <= min(most, FIRST)
    matches = [
        place
        for length in LENGTHS
        for place in range(len(tokens) - 1, length - 1, -1)
        if tokens[place - length : place] == tokens[len(tokens) - length :]
    ]
    assert found == (tokens[matches[0] :][: min(most, FIRST)] if matches else [])


# -- several tokens in one pass ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("name", PACKED)
def test_several_tokens_at_once_equal_one_after_the_other(
    name: str, native: bool, tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(name).eval()
    if not native:
        monkeypatch.setattr(compiled, "kernels_for", lambda *_: None)
    prompts = [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14], [15, 16, 17], [5, 6, 7, 20]]
    new = [[21, 22, 23, 24], [25], [26, 27]]
    with torch.inference_mode(), slots.attending(model):
        together, single = Slots(model, None, 0, 4), Slots(model, None, 0, 4)
        together.join(prompts)
        single.join(prompts)
        found = together.several(new)
        steps = [single.step([row[min(turn, len(row) - 1)] for row in new]) for turn in range(4)]
        expected = torch.stack([steps[turn][row] for row, tokens in enumerate(new) for turn in range(len(tokens))])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        together.shorten([2, 0, 1])  # the last guesses were wrong
        anew = Slots(model, None, 0, 4)
        anew.join([[*prompts[0], 21, 22], [*prompts[1], 25], [*prompts[2], 26]])
        for token in (31, 32):
            torch.testing.assert_close(together.step([token] * 3), anew.step([token] * 3), rtol=1e-4, atol=1e-4)


# -- answers ----------------------------------------------------------------------------------------------------------
class Passes:
    """Counts the passes of both kinds, which a test may keep from guessing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.single = self.several = 0
        step, several = Slots.step, Slots.several

        def stepped(form: Slots, ids: Any) -> Any:
            self.single += 1
            return step(form, ids)

        def more(form: Slots, rows: Any) -> Any:
            self.several += 1
            return several(form, rows)

        monkeypatch.setattr(Slots, "step", stepped)
        monkeypatch.setattr(Slots, "several", more)


@pytest.fixture
def engine(adapter: Path) -> Iterator[ContinuousEngine]:
    made = ContinuousEngine(load, RENDERER, BASE, "base", Limits(seats=4))
    made.load("v1", str(adapter))
    yield made
    made.close()


ASKS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"decoding": Decoding(40, 0.8, 0.9)},
    "hot": {"decoding": Decoding(40, 1.5)},
    "of an adapter": {"model": "v1"},
    "with logprobs": {"logprobs": 2},
    "with a stop text": {"stop": ("e",)},
    "after a schema": {
        "schema": {"type": "object", "properties": {"a": {"enum": ["x y x y x y", "z"]}}, "required": ["a"]},
    },
    "short": {"decoding": Decoding(2)},
}


def told(engine: ContinuousEngine) -> dict[str, Any]:
    """Of all asks, first one after the other, then all at once: text, end, tokens and log-probabilities."""
    found: dict[str, Any] = {}
    for together in (False, True):
        waiting: list[threading.Event] = []
        for name, how in ASKS.items():
            pieces: list[Piece] = []
            over = threading.Event()

            def hear(piece: Piece, pieces: list[Piece] = pieces, over: threading.Event = over) -> None:
                pieces.append(piece)
                if piece.finish:
                    over.set()

            asked = Request((Message("user", REPEATING),), seed=7)
            engine.submit(Ask(asked, **{"decoding": Decoding(40), "model": "base", **how}), hear)
            found[f"{name} {together}"] = pieces
            waiting.append(over)
            if not together:
                assert over.wait(60)
        assert all(over.wait(60) for over in waiting)
    return {name: summary(pieces) for name, pieces in found.items()}


def summary(pieces: list[Piece]) -> Any:
    last = pieces[-1]
    assert last.usage is not None
    numbers = [(one.text, round(one.logprob, 3)) for piece in pieces for one in piece.logprobs]
    return "".join(piece.text for piece in pieces), last.finish, last.usage.completion, numbers


def test_answers_are_the_same_with_guesses_and_take_fewer_passes(
    engine: ContinuousEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = Passes(monkeypatch)
    ours = told(engine)
    tokens = sum(count for _, _, count, _ in ours.values())
    assert passes.several and passes.single + passes.several < 0.8 * tokens
    monkeypatch.setattr(batching, "PASS", 0)
    passes.several = 0
    assert told(engine) == ours
    assert not passes.several


def test_a_conversation_goes_on_from_what_was_right(engine: ContinuousEngine) -> None:
    """What a row leaves behind has the keys and values of right tokens alone."""

    def ask(messages: tuple[Message, ...]) -> tuple[str, int]:
        pieces: list[Piece] = []
        over = threading.Event()
        engine.submit(
            Ask(Request(messages), Decoding(30), "base"),
            lambda piece: (pieces.append(piece), piece.finish and over.set()),
        )
        assert over.wait(60) and pieces[-1].usage is not None
        return "".join(piece.text for piece in pieces), pieces[-1].usage.cached

    first = (Message("user", REPEATING),)
    said, _ = ask(first)
    then = (*first, Message("assistant", said), Message("user", "And again?"))
    answer, cached = ask(then)
    assert cached > len(RENDERER.prompt(first))
    fresh = ContinuousEngine(load, RENDERER, BASE, "base")
    try:
        heard: list[Piece] = []
        over = threading.Event()
        fresh.submit(
            Ask(Request(then), Decoding(30), "base"), lambda piece: (heard.append(piece), piece.finish and over.set())
        )
        assert over.wait(60)
        assert "".join(piece.text for piece in heard) == answer
    finally:
        fresh.close()
