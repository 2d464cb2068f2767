"""The split is stable, leaves nothing in two places, and gives every stratum its share."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from stepping import decide

from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.data.config import SplitConfig
from tuneloop.data.facts import SPLITS
from tuneloop.data.shards import described, places
from tuneloop.data.split import LENGTHS, OUT, Columns, Division, divide, near


def example(prompt: str, answer: str = "a", row: int = 0, parents: tuple[str, ...] = (), **meta: Any) -> Example:
    return Example((Message("user", prompt), Message("assistant", answer)), Origin("s", row, parents), (), meta)


def split(
    sources: list[Example],
    shares: SplitConfig | None = None,
    clusters: Any = None,
    train_only: Any = None,
    **own: list[Example],
) -> tuple[list[str], Division]:
    """The name of the split of every row (sources, then own val, then own test); "" for rows that left."""
    rows = [*sources, *own.get("val", []), *own.get("test", [])]
    column = {**places(rows), **described(rows)}
    sizes = [len(sources), len(own.get("val", [])), len(own.get("test", []))]
    columns = Columns(
        group=np.repeat([0, 1, 2], sizes),
        train_only=np.zeros(len(rows), bool) if train_only is None else np.array(train_only),
        source=np.unique([one.origin.source for one in rows], return_inverse=True)[1],
        clusters=[] if clusters is None else [np.array(clusters)],
        words=column["prompt_words"] + column["answer_words"],
        **{name: column[name] for name in ("id", "prompt_key", "parents", "label", "language")},
    )
    found = divide(columns, shares or SplitConfig(), list(own))
    return ["" if fate == OUT else SPLITS[fate] for fate in found.fate.tolist()], found


labelled = st.lists(st.tuples(st.text(max_size=8), st.sampled_from("abc"), st.booleans()), max_size=60)


@settings(deadline=None)
@given(labelled, labelled)
def test_appended_rows_move_no_other(first: list[tuple[str, str, bool]], more: list[tuple[str, str, bool]]) -> None:
    """Whichever source they are appended to, and however small the strata are."""

    def of(source: str, rows: list[tuple[str, str, bool]], wanted: bool) -> list[Example]:
        return [
            Example((Message("user", text), Message("assistant", "a")), Origin(source, 0), meta={"label": label})
            for text, label, mine in rows if mine == wanted
        ]  # fmt: skip

    one, other = of("s", first, True), of("t", first, False)
    before, _ = split([*one, *other])
    more_of_one = of("s", more, True)
    after, _ = split([*one, *more_of_one, *other, *of("t", more, False)])
    told = [where for row, where in enumerate(after) if not len(one) <= row < len(one) + len(more_of_one)]
    joined = {one.prompt[0].content for one in more_of_one}  # these may become the first of a unit of the other source
    for row, (old, new) in enumerate(zip(before, told, strict=False)):
        assert old == new or (row >= len(one) and joined), "a row moved"


def test_a_thousand_rows_more_move_none_of_three_thousand() -> None:
    draw = random.Random(0)
    rows = [example(f"问题 {number}", label=f"label {draw.randrange(300)}") for number in range(4000)]
    before, after = split(rows[:3000])[0], split(rows)[0]
    assert after[:3000] == before
    u = described(rows)["prompt_key"] / 2**64
    drawn = np.where(u < 0.1, "test", np.where(u < 0.2, "val", "train"))
    assert 0 < np.count_nonzero(drawn != after) < 400, "strata of 13 rows are seldom as chance would have them"


def test_a_row_stays_when_others_come_before_it() -> None:
    rows = [example(f"问题 {number}") for number in range(500)]
    more = [example(f"new {number}") for number in range(500)]
    assert split([*more, *rows])[0][500:] == split(rows)[0]


def test_the_same_question_never_straddles() -> None:
    asked = [f"Question {number}" for number in range(200)]
    variants = [example(text, answer) for text in asked for answer in ("a", "b")]
    variants += [example(f"  {text.upper()}\u3000") for text in asked]
    where, _ = split(variants, SplitConfig(train=0.4, val=0.3, test=0.3))
    homes: dict[str, set[str]] = {}
    for one, name in zip(variants, where, strict=True):
        homes.setdefault(one.prompt[0].content.strip().lower(), set()).add(name)
    assert len(homes) == 200 and all(len(names) == 1 for names in homes.values())


def test_clusters_and_children_never_straddle() -> None:
    rows = [example(f"q{number}", row=number) for number in range(300)]
    children = [example(f"child of {row.origin.row}", parents=(row.id,)) for row in rows[:100]]
    orphans = [example(f"orphan {number}", parents=("00ff",)) for number in range(50)]
    clusters = [number // 3 if 100 <= number < 200 else -number for number in range(450)]
    where, found = split([*rows, *children, *orphans], clusters=clusters)
    assert where[300:400] == where[:100]
    assert len(set(where[400:])) == 1, "children of a row that has left stay together"
    for number in range(34, 66):
        assert len({where[row] for row in range(100, 200) if row // 3 == number}) == 1
    assert set(where[:300]) == set(SPLITS)
    assert all(where[row] == where[unit] for row, unit in enumerate(found.unit.tolist()))


def test_rows_that_must_be_trained_on_take_their_units_along() -> None:
    free = [example(f"q{number}", row=number) for number in range(600)]
    general = [example(f"general {number}") for number in range(2000)]
    twins = [example(f"Q{number} ") for number in range(50)]  # the same questions
    children = [example(f"child {number}", parents=(free[number].id,)) for number in range(50, 100)]
    clusters = [*range(600), *(range(100, 150)), *range(1000, 3050)]  # near-duplicates of 100 to 149
    only = [False] * 600 + [True] * 2100
    near_twins, general = general[:50], general[50:]
    where, found = split([*free, *near_twins, *general, *twins, *children], clusters=clusters, train_only=only)
    assert where[600:] == ["train"] * 2100
    assert where[:150] == ["train"] * 150 and found.drawn.tolist() == list(range(150))
    counted = Counter(where[150:600])
    assert all(22 <= counted[name] <= 90 for name in ("val", "test")), "the shares are those of the rows that are free"


def test_an_own_test_file_goes_before_rows_that_must_be_trained_on() -> None:
    rows = [example(f"q{number}") for number in range(20)]
    where, _ = split(rows, train_only=[True] * 20 + [False], test=[example("Q3")])
    assert where == ["train"] * 3 + [""] + ["train"] * 16 + ["test"]


def test_rows_of_one_template_are_divided_all_the_same() -> None:
    where, found = split([example(f"q{number}") for number in range(200)], clusters=[0] * 150 + list(range(1, 51)))
    assert set(where[:150]) == set(SPLITS)
    assert found.templates == [(0, 150)]
    _, small = split([example(f"q{number}") for number in range(200)], clusters=[0] * 20 + list(range(1, 181)))
    assert not small.templates and len(set(small.unit[:20].tolist())) == 1


def test_shares_hold_on_average_and_a_documented_hash_decides() -> None:
    rows = [example(f"问题 {number}") for number in range(4000)]
    where, _ = split(rows)
    assert [round(where.count(name) / 4000, 1) for name in SPLITS] == [0.8, 0.1, 0.1]
    larger, _ = split(rows, SplitConfig(train=0.7, val=0.2, test=0.1))
    assert [name == "test" for name in larger] == [name == "test" for name in where], "test does not depend on val"
    u = described(rows)["prompt_key"] / 2**64
    assert [name == "test" for name in where] == (u < 0.1).tolist()


@pytest.mark.parametrize("size", [10, 20, 40, 200])
def test_every_stratum_has_its_share(size: int) -> None:
    rows = [
        example(f"{label} {number}" + (" 很长的中文" * 12 if chinese else ""), label=label)
        for label in map(str, range(20))
        for number in range(size)
        for chinese in (True, False)
    ]
    where, _ = split(rows)
    for part, share in (("test", 0.1), ("val", 0.1)):
        counts = Counter(
            (one.meta["label"], one.prompt[0].content[-1] == "文")
            for one, name in zip(rows, where, strict=True)
            if name == part
        )
        wanted = share * size
        assert len(counts) == 40, "no label and no language is left out"
        assert all(wanted / 2 - 1 <= count <= 2 * wanted + 1 for count in counts.values()), counts
    assert LENGTHS[0] < 60 < LENGTHS[1]


def test_documents_without_a_prompt_are_spread() -> None:
    documents = [Example((Message("text", f"Doc {number}", train=1.0),), Origin("s", number)) for number in range(300)]
    assert set(split(documents)[0]) == set(SPLITS)


def test_own_test_rows_leave_the_training_rows() -> None:
    rows = [example(f"q{number}", row=number) for number in range(50)]
    where, found = split(rows, test=[example("Q7 ", "another answer"), example("new")])
    assert where[50:] == ["test", "test"]
    assert found.twins == {7: (50, "test")} and where[7] == ""
    assert where.count("test") == 2 and where[:50].count("val") > 0, "what has no file of its own is still split off"


def test_own_val_and_test() -> None:
    rows = [example(f"q{number}") for number in range(20)]
    where, found = split(rows, val=[example("q1"), example("q2"), example("v")], test=[example("q2")])
    assert where[:20].count("train") == 18
    assert where[20:] == ["val", "", "val", "test"], "test keeps what val also has"
    assert sorted(name for _, name in found.twins.values()) == ["test", "test", "val"]


def test_own_val_where_test_is_a_share() -> None:
    rows = [example(f"q{number}") for number in range(100)]
    where, found = split(rows, val=[example(f"q{number}") for number in range(50)])
    assert set(where[100:]) == {"val"} and where[:50] == [""] * 50
    assert "test" in where[50:100] and "val" not in where[:100]
    assert len(found.twins) == 50


def test_near_duplicates_are_kept_together_but_templates_do_not_make_them() -> None:
    review = "Is this movie review positive or negative? Answer with one word. Review: {}"
    words = "the a film plot actors dull bright slow funny never always truly story songs heart long short wit".split()
    rng = random.Random(0)
    reviews = {" ".join(rng.sample(words, rng.randint(2, 7))) for _ in range(400)}
    rows = [example(review.format(text), row=number) for number, text in enumerate(sorted(reviews)[:300])]
    long = "The ship left the harbour at dawn with forty crates of oranges, two dogs and a very old map of the islands"
    rows += [example(f"{long}{end}", row=300) for end in ("", ".", " ...")]
    for name, step in zip(("conversation", "prompt"), near(), strict=True):
        found = decide(step, rows).clusters
        assert found is not None
        groups = Counter(found.tolist())
        assert groups[int(found[300])] == 3, name
        assert max(groups.values()) < 30, f"{name}: a prompt template must not chain all rows into one unit"


@pytest.mark.parametrize(
    "shares", [{"train": 0.9}, {"train": 0.0, "val": 0.5, "test": 0.5}, {"train": 1.1, "val": -0.1}]
)
def test_impossible_shares(shares: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        SplitConfig(**shares)
