from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.generate.spoken import Spoken
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import find_base
from tuneloop.render.answers import AnswerStream
from tuneloop.render.chat import any_of
from tuneloop.render.load import renderer_of

RENDERER = renderer_of(find_base(ModelConfig(base="embedded")))
TEXTS = [
    "The sea is calm.",
    "你好，世界！😀 再见",
    "a" * 50,
    " leading and trailing ",
    "naïve café\n\n```py\nx = 1\n```",
]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_the_whole_and_never_half_a_character(text: str) -> None:
    ids = RENDERER.tokenizer.encode(text, add_special_tokens=False)
    spoken = Spoken(RENDERER)
    pieces = [spoken.add(token)[1] for token in ids] + [spoken.end()[1]]
    assert "".join(pieces) == RENDERER.answer_text(ids)
    assert not any("\ufffd" in piece for piece in pieces)


@given(st.integers(0, 10_000))
def test_a_stop_text_is_found_wherever_tokens_cut_it(seed: int) -> None:
    rng = random.Random(seed)
    text = "".join(rng.choice("ab你 ") for _ in range(30))
    stop = "".join(rng.choice("ab你 ") for _ in range(rng.randint(1, 3)))
    spoken = Spoken(RENDERER, (stop,))
    told = ""
    for token in RENDERER.tokenizer.encode(text, add_special_tokens=False):
        told += spoken.add(token)[1]
        assert stop not in told
        if spoken.stopped:
            break
    told += spoken.end()[1]
    whole = RENDERER.answer_text(RENDERER.tokenizer.encode(text, add_special_tokens=False))
    assert told == whole.split(stop)[0] and spoken.stopped == (stop in whole)


@given(st.text(alphabet="<>/thinkab\n é", max_size=40), st.booleans(), st.lists(st.integers(1, 6), min_size=1))
def test_reasoning_is_told_apart_in_any_pieces(text: str, begun: bool, sizes: list[int]) -> None:
    def parts(cuts: list[int]) -> tuple[str, str]:
        stream = AnswerStream("<think>", "</think>", begun, "", any_of([]))
        found, place = [("", "")], 0
        while place < len(text):
            size = cuts[len(found) % len(cuts)]
            found.append(stream.push(text[place : place + size]))
            place += size
        found.append(stream.end())
        return "".join(one for one, _ in found), "".join(one for _, one in found)

    assert parts(sizes) == parts([1000])
    reasoning, answer = parts(sizes)
    if begun or text.startswith("<think>"):
        inside, _, rest = text.removeprefix("" if begun else "<think>").partition("</think>")
        assert reasoning == inside and answer == rest.lstrip("\n")
    else:
        assert (reasoning, answer) == ("", text)
