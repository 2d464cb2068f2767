"""The faster way from texts to ids gives the tokenizer's own ids and places, or steps aside."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_tokenizer import TEXTS, train_tokenizer
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import find_base
from tuneloop.models.tokenizer import tokenizer_from
from tuneloop.render import borders
from tuneloop.render.borders import Encoder
from tuneloop.render.byte_pairs import GPT2, OURS, SETTLED, BytePairs, Spans
from tuneloop.render.many import render_all
from tuneloop.render.template import Renderer

SHARED = Path(__file__).parents[3].parent / "shared" / "tokenizers"
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CUTS: dict[str, list[Any]] = {
    "gpt2": [],
    "qwen": [QWEN],
    "smollm": [{"type": "Digits", "individual_digits": True}, GPT2],
    "embedded": list(OURS),
}
SIGNS = [
    " ", "  ", "\n", "\r\n", "\r", "\t", "1", "23", "'s", "'S", "'ll", "a", "The", "capital", "中文", "电影", "日本",
    "한국", "é", "e\u0301", "Ж", ".", "…", "!!", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "。", "\u3000",
    "\u00a0", "ſ", "K", "々", "〇", "⺀", "٣", "क", "👍🏽", "\u200d", "\ufeff", "\x00", "\x1f",
]  # fmt: skip


def changed(tokenizer: Any, change: Any) -> PreTrainedTokenizerFast:
    """A tokenizer whose description was changed."""
    value = json.loads(tokenizer.backend_tokenizer.to_str())
    change(value)
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(value)), eos_token="<|im_end|>")


@cache
def made(name: str) -> Any:
    """A small tokenizer that cuts texts like a known one, or one that was put beside the project."""
    if name not in CUTS:
        if not (SHARED / name).is_dir():
            pytest.skip("the shared tokenizers are not here")
        return tokenizer_from(SHARED / name)

    def cut(value: dict[str, Any]) -> None:
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": not CUTS[name]}
        value["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*map(step, CUTS[name]), byte_level]}
        value["normalizer"] = {"type": "NFC"} if name == "qwen" else None

    def step(how: Any) -> Any:
        split = {"type": "Split", "pattern": {"Regex": how}, "behavior": "Isolated", "invert": False}
        return how if isinstance(how, dict) else split

    return changed(train_tokenizer(TEXTS * 3, 700), cut)


@cache
def ways(name: str) -> tuple[Any, BytePairs]:
    found = BytePairs.of(made(name))
    assert found is not None
    return made(name), found


def alike(name: str, texts: Sequence[str]) -> int:
    """How many of the texts the faster way took; fails where one of them has other ids or places."""
    tokenizer, pairs = ways(name)
    own = tokenizer(list(texts), add_special_tokens=False)
    read, taken = pairs.read(texts), 0
    fast = [(text, ids) for text, ids in zip(texts, read, strict=True) if ids is not None]
    places_of = Spans.of_all([text for text, _ in fast], [ids for _, ids in fast], pairs.sizes)
    for text, ids, encoding, found in zip(texts, own["input_ids"], own.encodings, read, strict=True):
        if found is not None:
            taken += 1
            assert found.tolist() == ids, text
            spans = next(places_of)
            assert [spans.of(index) for index in range(len(ids))] == encoding.offsets, text
            places = borders.Offsets(encoding)
            for char in {0, len(text) // 3, len(text) // 2, len(text)}:
                assert spans.token_at(char) == places.token_at(char), (text, char)
    return taken


@pytest.mark.parametrize("name", CUTS)
def test_settled_characters_are_cut_alike(name: str) -> None:
    every = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000 and SETTLED.fullmatch(chr(code))]
    assert len(every) > 40_000
    marks = [sign for sign in every if ord(sign) < 0x2000 or not sign.isalpha()]
    letters = random.Random(name).sample(sorted(set(every) - set(marks)), 2_000)
    texts = [
        form.format(sign) for form in ("a{0}a {0}{0} {0}a1{0}\n{0}", "'{0} .{0}  {0}\r\n中{0} {0}") for sign in marks
    ]
    texts += [f"a{sign}a {sign}{sign} '{sign}  {sign}1{sign}\n中{sign} {sign}" for sign in letters]
    assert alike(name, texts) > 0.9 * len(texts)


@pytest.mark.parametrize("name", ["gpt2/", "qwen2.5", "qwen3", "llama-3.1"])
def test_well_known_tokenizers(name: str) -> None:
    draw = random.Random(1)
    texts = ["".join(draw.choice(SIGNS) for _ in range(draw.randrange(1, 40))) for _ in range(3_000)]
    assert alike(name, texts) > 300


@pytest.mark.parametrize("name", CUTS)
@given(parts=st.lists(st.sampled_from(SIGNS) | st.text(max_size=4), max_size=30))
def test_any_text_is_read_alike_or_left(name: str, parts: list[str]) -> None:
    text = "".join(parts)
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        assert ways(name)[1].read([text]) == [None]
        return
    alike(name, [text])


def test_a_token_that_merges_do_not_reach_is_none() -> None:
    """b and c come together first, so that `abc` never does, though its bytes are a token."""

    def merges(value: dict[str, Any]) -> None:
        vocabulary = {token: number for token, number in value["model"]["vocab"].items() if len(token) == 1}
        first = max(vocabulary.values()) + 1
        for number, token in enumerate(("bc", "ab", "abc", "abca")):
            vocabulary[token] = first + number
        value["added_tokens"] = []
        value["post_processor"] = None
        value["model"] |= {"vocab": vocabulary, "merges": [["b", "c"], ["a", "b"], ["ab", "c"], ["abc", "a"]]}

    tokenizer = changed(train_tokenizer(), merges)
    pairs = BytePairs.of(tokenizer)
    assert pairs is not None
    for text in ("abc", "abca ab bc", "aabcabca", "ababcc"):
        (found,) = pairs.read([text])
        assert found is not None and found.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(tokenizer("abc", add_special_tokens=False)["input_ids"]) == 2


def test_bytes_that_the_vocabulary_lacks_are_left_to_the_tokenizer() -> None:
    def lacking(value: dict[str, Any]) -> None:
        value["model"]["vocab"] = {token: n for token, n in value["model"]["vocab"].items() if token not in ("Ñ", "G")}
        value["model"]["merges"] = []

    pairs = BytePairs.of(changed(train_tokenizer(), lacking))
    assert pairs is not None and set(pairs.absent) == {0xD1, 0x47}
    assert [ids is None for ids in pairs.read(["привет", "Go", "да, so"])] == [True, True, False]


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["model"].update(ignore_merges=True),
        lambda value: value["model"].update(dropout=0.1),
        lambda value: value["model"]["merges"].reverse(),
        lambda value: value.update(normalizer={"type": "Lowercase"}),
        lambda value: value["added_tokens"][0].update(rstrip=True),
        lambda value: value["added_tokens"][0].update(content="<|im"),
        lambda value: value.update(pre_tokenizer={"type": "Whitespace"}),
        lambda value: value["pre_tokenizer"].update(add_prefix_space=True),
    ],
)
def test_what_is_not_known_is_left_alone(change: Any) -> None:
    assert BytePairs.of(train_tokenizer()) is not None
    assert BytePairs.of(changed(train_tokenizer(), change)) is None


def test_the_encoder_changes_over_and_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = made("qwen")
    texts = [*TEXTS, "क is left to the tokenizer", "<|im_start|>user\nThe café, e\u0301, 电影 <|im_end|>\n", ""]
    own = [
        (one.ids.tolist(), [one.places.token_at(char) for char in range(9)]) for one in Encoder(tokenizer).encode(texts)
    ]
    monkeypatch.setattr(borders, "MANY", 10)
    monkeypatch.setattr(borders, "AN_ENTRY", 0)
    encoder = Encoder(tokenizer)
    for turn in range(3):
        found = [(one.ids.tolist(), [one.places.token_at(char) for char in range(9)]) for one in encoder.encode(texts)]
        assert found == own and encoder._pairs is not None, turn


def test_one_that_reads_otherwise_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = made("gpt2")
    monkeypatch.setattr(borders, "MANY", 10)
    monkeypatch.setattr(borders, "AN_ENTRY", 0)
    monkeypatch.setattr(BytePairs, "read", lambda self, texts: [np.array([1, 2, 3], np.int32)] * len(texts))
    encoder = Encoder(tokenizer)
    for _ in range(2):
        assert [one.ids.tolist() for one in encoder.encode(TEXTS)] == tokenizer(list(TEXTS), add_special_tokens=False)[
            "input_ids"
        ]
    assert encoder._pairs is None


def test_rows_are_rendered_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(2)

    def words() -> str:
        return "".join(draw.choice(SIGNS[:22] + SIGNS[26:]) for _ in range(draw.randrange(1, 20)))

    examples = [
        Example((Message("user", words()), Message("assistant", words()), Message("user", words()),
                 Message("assistant", words())), Origin("made", row))
        for row in range(700)
    ]  # fmt: skip
    tokenizer = tokenizer_from(find_base(ModelConfig(base="embedded")).path)
    own = render_all(Renderer(tokenizer), examples)
    monkeypatch.setattr(borders, "MANY", 1_000)
    monkeypatch.setattr(borders, "AN_ENTRY", 0)
    found = render_all(Renderer(tokenizer), examples)
    assert len(found[0]) == len(own[0]) >= 600 and len(found[1]) == len(own[1])
    for one, other in zip(*(rows for rows, _ in (found, own)), strict=True):
        assert one.ids.tolist() == other.ids.tolist() and one.weights.tolist() == other.weights.tolist()
