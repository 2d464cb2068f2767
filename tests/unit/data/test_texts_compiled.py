"""What is compiled gives what the numpy forms give, for all texts; and where nothing can be, everything works."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tuneloop.core import jsonl
from tuneloop.data import characters, compiled, forms, minhash, passes, shingles
from tuneloop.data.compiled import Twofold
from tuneloop.data.config import DataConfig
from tuneloop.data.source import recognise
from tuneloop.data.steps import repair
from tuneloop.models import native

ALL: dict[str, Twofold[Any]] = {
    "words": characters._words,
    "letters": characters._letters,
    "signs": repair._signs(),
    "forms": forms._forms,
    "quoted": forms._quoted,
    "shingles": shingles._of_each,
    "signatures": minhash._signatures,
}
ODD = (
    "aB1_'’.,- \n\t\x00\x07\x0b\x1f\x7f\x85\xa0\"\\<&，。…　中文的〇②Ａéл×ªß\u0301\u0345\u200b\u2028\ufeffァんｱ\ufffd"
    "한\u1100㐀鈥Ã\ud800\udfff\ue000\U0001f600\U0001fb00\U0001fb01\U00020001\U000e0041\U0010ffff"
)
texts = (
    st.text(st.sampled_from(ODD), max_size=20)
    | st.text(max_size=8)
    | st.sampled_from(["今天天气很好，我们去公园吧。", "The quick brown fox's 1,000 jumps… "]).map(
        lambda text: text * 9
    )
)
needs_gcc = pytest.mark.skipif(compiled._library() is None, reason="nothing can be compiled here")


def result(form: Callable[[Sequence[str]], Any], some: Sequence[str]) -> Any:
    """What a form gives, so that it can be compared; for a fault its kind. A shingle of a long text may come twice."""
    try:
        found = form(some)
    except TypeError:
        return TypeError
    if isinstance(found, tuple):
        hashes, borders = found
        return [set(hashes[start:end].tolist()) for start, end in pairwise(borders.tolist())]
    return found.tolist() if isinstance(found, np.ndarray) else found


@needs_gcc
@pytest.mark.parametrize("name", ALL)
def test_every_function_is_compiled(name: str) -> None:
    assert ALL[name].fastest != ALL[name].own


@needs_gcc
@pytest.mark.parametrize("name", ALL)
@given(some=st.lists(texts, max_size=40))
@example(some=["", "x" * 200_000, "中" * 140_000, "", "ab" * 9])  # longer than what numpy hashes at once
def test_both_forms_give_the_same(name: str, some: list[str]) -> None:
    assert result(ALL[name].fastest, some) == result(ALL[name].own, some)


@needs_gcc
def test_a_hash_that_looks_like_an_empty_bin_is_none_in_both_forms() -> None:
    some = ["中勺嚉", "中勺嚉中", ""]
    assert shingles.sets(some[:1])[0].tolist() == [2**32 - 1]
    assert result(minhash._signatures.fastest, some) == result(minhash._signatures.own, some)
    assert not minhash._signatures.fastest(some)[0].any()


@needs_gcc
@pytest.mark.parametrize("name", ALL)
def test_every_character_has_the_same_in_both_forms(name: str) -> None:
    points = [code for code in range(0x110000) if code < 0x3500 or code % 11 == 0 or 0xF800 < code < 0x20000]
    some = [f"中a{chr(code)} {chr(code)}b" for code in points if name != "quoted" or not 0xD800 <= code < 0xE000]
    assert result(ALL[name].fastest, some) == result(ALL[name].own, some)


@needs_gcc
@pytest.mark.parametrize("name", ALL)
def test_what_is_no_text_is_an_error_and_no_crash(name: str) -> None:
    wrong: Any = ["a", 1, "b"]
    with pytest.raises(TypeError):
        ALL[name].fastest(wrong)


@pytest.mark.parametrize("name", ALL)
def test_without_a_compiler_the_numpy_form_is_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> ctypes.CDLL:
        raise native.Unbuilt("there is no gcc")

    monkeypatch.setattr(native, "load", load)
    compiled._library.cache_clear()
    try:
        given = ALL[name]
        assert Twofold(given.own, given._compiled).fastest is given.own
    finally:
        compiled._library.cache_clear()


@needs_gcc
def test_a_compiled_form_that_differs_is_not_used() -> None:
    def own(some: Sequence[str]) -> list[int]:
        return list(map(len, some))

    assert Twofold(own, lambda _, some: [len(one.encode("utf-16-le", "replace")) // 2 for one in some]).fastest is own
    assert Twofold(own, lambda _, some: [len(one) for one in some]).fastest is not own


def test_for_few_texts_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_is_loaded", lambda: False)
    monkeypatch.setattr(compiled, "_library", pytest.fail)
    assert characters.count_words(["a b", "中文"]).tolist() == [2, 2]


@needs_gcc
def test_rows_have_the_same_keys_and_lines_in_both_forms(
    write: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [f"{text}，number {number % 50} of {text}" * 3 for number, text in enumerate(compiled.EXAMPLE * 8)]
    path = write("rows.jsonl", [{"prompt": f"问题 {one}", "response": one} for one in said])
    recipe: list[Any] = ["repair", "length", "exact_duplicates", "near_duplicates", "pii"]
    config = DataConfig.model_validate({"sources": [{"path": path}], "steps": recipe})
    found = []
    for fast in (True, False):
        monkeypatch.setattr(compiled, "WORTH", 0 if fast else 1 << 40)
        monkeypatch.setattr(compiled, "_is_loaded", lambda: False)
        refined = passes.refine([recognise(config.sources[0], 0)], config.steps, tmp_path / str(fast), "here")
        (tray,) = refined.trays
        columns = {name: column.tolist() for name, column in tray.shard.columns.items()}
        found.append((columns, list(tray.shard.lines()), tray.all_drops()))
    assert found[0] == found[1]
    assert len(found[0][2]) > 20 and all(map(jsonl.parse, found[0][1]))
