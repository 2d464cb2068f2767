"""The look at many texts says what the look at each says."""

from __future__ import annotations

from tuneloop.guard import pii, screen

TEXTS = [
    "",
    "no digit",
    "tel １３８１２３４５６７８",
    "a\ud800b 138 0013 8000",
    "li＠firma.cn",
    "京A12345",
    "the token is abcd1234",
]


def test_all_patterns_match() -> None:
    texts = ["a1", "b1", "a", ""]
    assert screen.matching(texts, "a").tolist() == [True, False, True, False]
    assert screen.matching(texts, "a", "1").tolist() == [True, False, False, False]
    assert screen.matching(texts).all()
    assert screen.matching(screen.column(texts), "a", "1").tolist() == [True, False, False, False]


def test_halves_of_characters_become_the_sign_for_them() -> None:
    assert screen.column(["a\ud800b", "\ud83d\ude00"]).to_list() == ["a\ufffdb", "😀"]


def test_patterns_that_rust_does_not_know() -> None:
    assert screen.is_plain("[0-9]{3}") and not screen.is_plain("(?<=a)b")


def test_no_text_is_passed_over() -> None:
    for strength in ("strong", "weak"):
        each = pii.may_hold_each(TEXTS, strength).tolist()
        assert [one or not pii.may_hold(text, strength) for one, text in zip(each, TEXTS, strict=True)] == [True] * 7
        assert not each[0] and not each[1]
        assert [pii.may_hold_each([text], strength).tolist() for text in TEXTS] == [[one] for one in each]
