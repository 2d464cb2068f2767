"""The audit's own search for near-duplicates is exact: it is held against comparing every pair."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneloop.data.audit import near as module
from tuneloop.data.audit.near import DENSE, LEAST, LONG, SHARED_LEAST, SHORT, SIMILAR, near
from tuneloop.texts.words import normalise

ZH = "患者张三主诉头痛三天伴恶心无呕吐查体未见明显异常建议完善头颅检查后复诊并注意休息清淡饮食"
EN = "The patient reports a headache for three days with nausea and without vomiting; the examination is normal."


def shingles(text: str) -> set[str]:
    found = set()
    for start in range(len(text)):
        size = SHORT if ord(text[start]) >= DENSE else LONG
        if start + size <= len(text):
            found.add(text[start : start + size])
    return found


def by_force(texts: list[str]) -> set[tuple[int, int]]:
    sets = [shingles(text) for text in texts]
    return {
        (one, other)
        for one, other in combinations(range(len(texts)), 2)
        if min(len(sets[one]), len(sets[other])) >= LEAST
        and len(sets[one] & sets[other]) >= SIMILAR * len(sets[one] | sets[other])
    }


EDITS = st.lists(st.tuples(st.integers(0, 80), st.sampled_from("xyz换改。")), max_size=4)


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from([ZH, EN, ZH + EN, EN[:40]]), EDITS), max_size=12))
def test_every_similar_pair_is_found_and_no_other(rows: list[tuple[str, list[tuple[int, str]]]]) -> None:
    texts: dict[str, None] = {}
    for text, edits in rows:
        for place, letter in edits:
            text = text[:place] + letter + text[place + 1 :]
        texts["".join(text.lower().split())] = None
    found = near(list(texts))
    assert {tuple(pair) for pair in found.pairs.tolist()} == by_force(list(texts))
    assert (found.similarity >= SIMILAR).all()


def test_texts_made_of_the_same_sentences() -> None:
    """A pair may share nothing but what 20 to 30 others say too: no group may be cut short."""
    rng = np.random.default_rng(3)
    pool = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 30)) for _ in range(80)]
    texts = ["".join(pool[number] for number in rng.choice(len(pool), 6, replace=False)) for _ in range(300)]
    texts += [text[:-9] for text in texts[:20]]
    found = {tuple(pair) for pair in near(texts).pairs.tolist()}
    assert found == by_force(texts) and len(found) >= 20


def test_equal_is_equal_up_to_width_case_and_space() -> None:
    found = near(["Hello World", "hello  world", "ＨＥＬＬＯ world", "你好 世界", "你好世界", "", " "])
    assert found.same.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert len(set(found.clusters().tolist())) == 3
    assert near([]).clusters().tolist() == []


@pytest.mark.parametrize("text", [ZH, EN])
def test_one_edit_in_either_language(text: str) -> None:
    found = near([text, f"{text[:20]}{text[21:]}", text[::-1]])
    assert found.pairs.tolist() == [[0, 1]] and found.clusters().tolist() == [0, 0, 2]
    assert found.neighbours()[0][0][0] == 1


def test_a_template_makes_no_two_questions_the_same() -> None:
    template = "Is this movie review positive or negative? Answer with one word. Review: "
    rng = np.random.default_rng(0)
    reviews = ["".join(rng.choice(list("abcdefghijklmnop "), 25)) for _ in range(SHARED_LEAST + 5)]
    assert not len(near([template + review for review in reviews]).pairs)
    again = near([template + review for review in [*reviews, f"{reviews[0]}!"]])
    assert again.pairs.tolist() == [[0, len(reviews)]]
    sums = [f"请计算：{a} + {b} 等于多少？" for a in range(10, 40) for b in range(10, 20)]
    assert not len(near(sums).pairs)


def test_a_large_family_is_one_cluster() -> None:
    rng = np.random.default_rng(0)
    whole = "".join(rng.choice(list("abcdefghijklmnop"), 400))
    family = [f"{whole[:place]}#{whole[place + 1 :]}" for place in range(0, SHARED_LEAST * 2, 4)]
    others = ["".join(rng.choice(list("qrstuvwxyz"), 400)) for _ in range(800)]
    clusters = near(family + others).clusters()
    assert len(set(clusters[: len(family)].tolist())) == 1 and len(set(clusters.tolist())) == 1 + len(others)


def test_long_texts_are_compared_at_both_ends_and_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    texts = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 3000)) for _ in range(40)]
    texts.append(texts[0][:500] + "!" + texts[0][500:])
    assert near(texts).pairs.tolist() == [[0, 40]]
    monkeypatch.setattr(module, "MOST_CHARACTERS", 10_000)
    monkeypatch.setattr(module, "BLOCK", 5_000)
    assert near(texts).pairs.tolist() == [[0, 40]]


def test_half_a_surrogate_pair_is_a_character() -> None:
    assert near(["\ud83d" + EN, "\ud83d" + EN + "."]).pairs.tolist() == [[0, 1]]


def test_planted_near_duplicates_are_found(shared: Path) -> None:
    rows = [
        json.loads(line) for line in (shared / "planted" / "planted4k.jsonl").read_text("utf-8").split("\n") if line
    ]
    texts = {row["id"]: "\n".join((row["instruction"], row["input"], row["output"])) for row in rows}
    clusters = dict(zip(texts, near(list(texts.values())).clusters().tolist(), strict=True))
    long = {one for one, text in texts.items() if len(shingles("".join(normalise(text).split()))) >= LEAST}
    for language in ("zh", "en"):
        planted = [(r["id"], r["of"]) for r in rows if r["kind"] == "near" and r["lang"] == language]
        planted = [(one, other) for one, other in planted if one in long and other in long]
        assert len(planted) > 150
        assert [pair for pair in planted if clusters[pair[0]] != clusters[pair[1]]] == []
