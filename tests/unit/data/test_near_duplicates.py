"""Near-duplicates: what counts as one, what must not, in what order, and how well on planted ones."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_shingles import plain
from pydantic import ValidationError
from stepping import decide, run

from tuneloop.core.conversation import Example, Message, Origin, ToolCall
from tuneloop.data.shingles import least_likeness_of_ends
from tuneloop.data.stance import core, stance
from tuneloop.data.steps import STEPS, Rows
from tuneloop.data.steps.exact_duplicates import ExactDuplicates
from tuneloop.data.steps.near_duplicates import REASON, NearDuplicates
from tuneloop.texts.words import normalise

WORDS = "refund order card account balance transfer limit payment invoice receipt".split()
CHINESE = "退款 订单 银行卡 账户 余额 转账 限额 付款 发票 收据 客服 申请".split()


def example(prompt: str, answer: str, row: int = 0, **meta: Any) -> Example:
    return Example((Message("user", prompt), Message("assistant", answer)), Origin("s", row), meta=meta)


def prose(words: Sequence[str], length: int, seed: int) -> str:
    return ("" if words is CHINESE else " ").join(random.Random(seed).choices(words, k=length))


def dropped(step: NearDuplicates, examples: Sequence[Example], shards: int = 3) -> list[int]:
    return sorted(decide(step, examples, shards).rejected)


LONG_EN = "To get your money back, open the order, choose Refund and tell us why; it takes three to five working days."
LONG_ZH = "要申请退款，请打开订单页面，选择退款并说明原因，款项一般会在三到五个工作日内原路退回您的账户，请耐心等待。"


def test_an_edited_copy_leaves_with_its_evidence_in_both_languages() -> None:
    rows = [
        example("How do I get a refund?", LONG_EN, 0),
        example("怎么申请退款？", LONG_ZH, 1),
        example("How do I get a refund", LONG_EN.replace("money", "cash"), 2),
        example("怎么申请退款", LONG_ZH.replace("耐心", "安心"), 3),
        example("How is the weather?", "I cannot look outside, but a weather service can tell you at once.", 4),
    ]
    verdict = decide(NearDuplicates(), rows)
    assert sorted(verdict.rejected) == [2, 3]
    for row, kept in ((2, 0), (3, 1)):
        rejection = verdict.rejected[row]
        assert rejection.reason == REASON
        assert rejection.evidence["kept"] == {"id": rows[kept].id, "origin": {"source": "s", "row": kept}}
        texts = [plain(normalise("\n".join(turn.content for turn in rows[one].messages))) for one in (row, kept)]
        exact = len(texts[0] & texts[1]) / len(texts[0] | texts[1])
        assert rejection.evidence["similarity"] == pytest.approx(exact, abs=1e-4) and exact >= 0.7
    assert verdict.clusters is not None and verdict.clusters.tolist() == [0, 1, 0, 1, 4]
    assert verdict.clusters.dtype == np.int64


def test_case_width_and_spacing_do_not_count() -> None:
    rows = [example("Refund ?", LONG_ZH, 0), example("ｒｅｆｕｎｄ   ?", LONG_ZH.replace("，", ","), 1)]
    assert decide(NearDuplicates(), rows).rejected[1].evidence["similarity"] == 1.0


@pytest.mark.parametrize(("keep", "gone"), [("first", [1, 2]), ("longest", [0, 2])])
def test_which_row_of_a_cluster_stays(keep: Any, gone: list[int]) -> None:
    rows = [example("Refund?", LONG_EN, 0), example("Refund?", LONG_EN + " Bye.", 1), example("Refund!", LONG_EN, 2)]
    assert dropped(NearDuplicates(keep=keep), rows) == gone


def test_without_dropping_the_clusters_still_stand() -> None:
    rows = [example("Refund?", LONG_EN, 0), example("Weather?", LONG_ZH, 1), example("Refund!", LONG_EN, 2)]
    step = NearDuplicates(drop=False)
    verdict = decide(step, rows)
    assert not verdict.rejected
    assert verdict.clusters is not None and verdict.clusters.tolist() == [0, 1, 0]
    read = Rows(step.keys(rows), 3, lambda row: {"id": rows[row].id}, lambda wanted: [rows[row] for row in wanted])
    assert step.clusters(read).tolist() == [0, 1, 0]


def test_near_equal_prompts_cluster_for_the_split() -> None:
    rows = [
        example("请问我昨天提交的退款申请什么时候可以到账？", "三天。", 0),
        example("请问我昨天提交的退款申请什么时候能够到账？", "一般五个工作日内原路退回。", 1),
        example("When will the refund that I asked for yesterday arrive?", "Soon.", 2),
        example("When will the refund which I asked for yesterday arrive?", "Within five working days.", 3),
    ]
    verdict = decide(NearDuplicates(of="prompt", drop=False, threshold=0.6), rows)
    assert verdict.clusters is not None and verdict.clusters.tolist() == [0, 0, 2, 2]
    assert dropped(NearDuplicates(), rows) == []


def test_other_questions_about_the_same_passage_stay_but_share_a_cluster() -> None:
    passage = prose(WORDS, 120, 1)
    rows = [
        example(f"{passage}\nWho pays?", "The bank pays for it, unless you closed the account in the meantime.", 0),
        example(f"{passage}\nWhat is left?", "Nothing at all, because transfers are free for members since May.", 1),
        example(f"{passage}\nWhy?", "Rules.", 2),
    ]
    verdict = decide(NearDuplicates(), rows)
    assert not verdict.rejected
    assert verdict.clusters is not None and verdict.clusters.tolist()[:2] == [0, 0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("positive", {}), ("negative", {})),
        (("是。", {}), ("不是。", {})),
        ((LONG_EN, {"label": "good"}), (LONG_EN, {"label": "bad"})),
        ((LONG_EN + " #### 42", {}), (LONG_EN + " #### 43", {})),
        (("营收同比增长3.2%，净利润持平，其余指标与上年基本一致。", {}),
         ("营收同比增长2.3%，净利润持平，其余指标与上年基本一致。", {})),
    ],
)  # fmt: skip
def test_contradictions_are_left_to_label_conflicts(one: Any, other: Any) -> None:
    question = "Read the following report on the company and answer in the way you were told: " + prose(WORDS, 30, 2)
    rows = [example(question, one[0], 0, **one[1]), example(question, other[0], 1, **other[1])]
    verdict = decide(NearDuplicates(), rows)
    assert not verdict.rejected
    assert verdict.clusters is not None and verdict.clusters.tolist() == [0, 0], "they still belong together"


def test_a_system_prompt_makes_nothing_alike() -> None:
    system = Message("system", prose(WORDS, 200, 3))
    rows = [
        Example((system, Message("user", words), Message("assistant", words[::-1])), Origin("s", row))
        for row, words in enumerate(["how is it", "what now then"])
    ]
    assert dropped(NearDuplicates(), rows) == []


def test_reasoning_is_compared() -> None:
    def thought(reasoning: str, row: int) -> Example:
        return Example((Message("user", "Why?"), Message("assistant", "So.", reasoning=reasoning)), Origin("s", row))

    rows = [thought(prose(WORDS, 40, 4), 0), thought(prose(WORDS, 40, 5), 1), thought(prose(WORDS, 40, 4), 2)]
    assert dropped(NearDuplicates(), rows) == [2]


def test_calls_are_compared_and_empty_texts_are_not() -> None:
    def call(city: str, row: int) -> Example:
        answer = Message("assistant", "", tool_calls=(ToolCall("get_the_weather_forecast", {"city": city}),))
        return Example((Message("user", "Weather, please, for the place that I told you"), answer), Origin("s", row))

    assert dropped(NearDuplicates(), [call("Beijing", 0), call("Beijing", 1), call("Bonn", 2)]) == [1]
    blank = [Example((Message("user", " "), Message("assistant", "")), Origin("s", row)) for row in range(3)]
    assert dropped(NearDuplicates(), blank) == []
    assert dropped(NearDuplicates(), []) == []
    documents = [Example((Message("text", LONG_EN, train=1.0),), Origin("s", row)) for row in range(2)]
    assert dropped(NearDuplicates(of="prompt"), documents) == [1]


@pytest.mark.parametrize("of", ["conversation", "prompt"])
def test_a_prompt_template_does_not_make_rows_alike(of: Any) -> None:
    template = (
        "你是一名电影网站的编辑，请先通读全文，再判断下面这条用户评论的情感倾向是正面还是负面，答案必须是二者之一，"
        "只回答一个词，不要解释，也不要重复题目里的任何文字。评论内容如下："
    )
    chance = random.Random(6)
    films = ["".join(chance.sample("电影情节演员表演音乐画面节奏结局导演剧本对白服装", 14)) for _ in range(60)]
    rows = [example(template + film, ["正面", "负面"][row % 2], row) for row, film in enumerate(films)]
    rows.append(example(template + films[0] + "！", "正面", 60))
    assert dropped(NearDuplicates(of=of), rows) == [60]
    assert len(dropped(NearDuplicates(of=of, ignore_shared=None), rows)) > 40, "as plain MinHash does"


def test_boilerplate_goes_even_where_it_is_most_of_the_data() -> None:
    rows = [example(f"ticket {row}", f"I am sorry, but as an assistant I cannot look into {row}; please call us.", row)
            for row in range(100)]  # fmt: skip
    assert len(dropped(NearDuplicates(), rows)) == 99


def test_a_chain_is_one_cluster_and_says_by_way_of_what() -> None:
    text = prose(WORDS, 60, 7)
    rows = [example("q", text[start : start + 240], row) for row, start in enumerate((0, 35, 70, 105))]
    verdict = decide(NearDuplicates(), rows)
    assert sorted(verdict.rejected) == [1, 2, 3]
    evidence = verdict.rejected[3].evidence
    assert evidence["similarity"] < 0.7 <= evidence["through"]["similarity"]
    assert evidence["through"]["origin"]["row"] in (1, 2), "which one is found first is the hashes' affair"


def test_thousands_of_copies_and_variants_take_one_comparison_a_row() -> None:
    copies = [example("hello", LONG_ZH, row) for row in range(3000)]
    variants = [example(f"hello {row}", LONG_EN, row) for row in range(3000, 5000)]
    rows, read = [*copies, *variants], list[int]()
    step = NearDuplicates()

    def bring(wanted: Sequence[int]) -> list[Example]:
        read.append(len(wanted))
        return [rows[row] for row in wanted]

    verdict = step.decide(Rows(step.keys(rows), len(rows), lambda row: {"id": str(row)}, bring))
    assert len(verdict.rejected) == 4998
    assert sum(read) < 4500 and max(read) <= 1001


TINY = st.lists(
    st.tuples(st.sampled_from([CHINESE, WORDS]), st.integers(0, 3), st.integers(0, 60), st.booleans()),
    max_size=10,
)


def built(recipe: list[tuple[Any, int, int, bool]]) -> list[Example]:
    """Rows from few texts, each with one word exchanged at a place, so that clusters and chains come up."""
    out: list[Example] = []
    for row, (words, seed, place, cut) in enumerate(recipe):
        text = random.Random(seed).choices(words, k=30)
        text[place % 30] = "x"
        joined = ("" if words is CHINESE else " ").join(text[: 24 if cut else 30])
        out.append(example("tell me", joined, row))
    return out


@settings(max_examples=40)
@given(TINY, st.integers(1, 5), st.sampled_from([0.6, 0.7, 0.85]))
def test_clusters_are_those_of_comparing_all_with_all(recipe: Any, shards: int, threshold: float) -> None:
    rows = built(recipe)
    sets = [plain(normalise(f"tell me\n{row.answer.content}")) for row in rows]
    cluster = list(range(len(rows)))
    for i in range(len(rows)):
        for j in range(i):
            if len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= threshold:
                low, high = sorted((cluster[i], cluster[j]))
                cluster = [low if one == high else one for one in cluster]
    verdict = decide(NearDuplicates(threshold=threshold), rows, shards)
    assert verdict.clusters is not None and verdict.clusters.tolist() == cluster
    assert sorted(verdict.rejected) == [row for row, first in enumerate(cluster) if row != first]


PART = st.lists(st.sampled_from(["abcdefghijkl", "mnopqr", "stuv", "退款订单银行卡账户", "余额"]), max_size=3).map(
    "".join
)


@settings(max_examples=400)
@given(st.tuples(PART, PART), st.tuples(PART, PART), st.integers(0, 20), st.booleans())
def test_ends_are_at_least_as_alike_as_is_said(one: Any, other: Any, cut: int, same: bool) -> None:
    before, ends = (one[0], one[0] if same else other[0]), (one[1], other[1][cut:])
    texts = (before[0] + ends[0], before[1] + ends[1])
    left, right, first, second = (plain(text) for text in (*texts, *ends))
    least = least_likeness_of_ends(len(left & right), texts, ends)
    assert least <= (len(first & second) / len(first | second) if first | second else 0)


PIECES = [
    "refund",
    "a",
    " ",
    "not ",
    "cannot",
    "can't",
    "never",
    "no",
    "12",
    "1,000.5",
    "没有",
    "有",
    "不",
    "未来",
    "退款",
    "非常",
]


@given(st.lists(st.sampled_from(PIECES), max_size=9), st.lists(st.sampled_from(PIECES), max_size=9))
def test_answers_with_other_cores_have_other_wordings(one: list[str], other: list[str]) -> None:
    rows = [example("?", f"refund order card account paid {''.join(parts)}", 0) for parts in (one, other)]
    first, second = (stance(row) for row in rows)
    assert core(rows[0]) == core(rows[1]) or first.wording != second.wording
    assert stance(rows[0], worded=False) == first._replace(wording=0, numbers=0, negations=0)


@settings(max_examples=40)
@given(TINY)
def test_a_lower_threshold_never_keeps_more(recipe: Any) -> None:
    rows = built(recipe)
    gone = [set(dropped(NearDuplicates(threshold=threshold), rows)) for threshold in (0.9, 0.7, 0.55)]
    assert gone[0] <= gone[1] <= gone[2]


@settings(max_examples=40)
@given(TINY, TINY, st.sampled_from(["first", "longest"]))
def test_more_rows_never_bring_a_dropped_one_back(recipe: Any, more: Any, keep: Any) -> None:
    rows = built(recipe)
    step = NearDuplicates(keep=keep)
    before, after = dropped(step, rows), dropped(step, built([*recipe, *more]))
    assert set(before) <= set(after)


def test_options_out_of_range() -> None:
    for options in ({"threshold": 0.3}, {"of": "title"}, {"ignore_shared": 0}):
        with pytest.raises(ValidationError):
            STEPS.make({"near_duplicates": options})


def planted(shared: Path) -> tuple[list[dict[str, Any]], list[Example]]:
    lines = (shared / "planted/planted4k.jsonl").read_bytes().splitlines()
    truth = [json.loads(line) for line in lines]
    return truth, [example(one["instruction"], one["output"], row) for row, one in enumerate(truth)]


def test_planted_near_duplicates_are_found_and_nothing_else(shared: Path) -> None:
    truth, rows = planted(shared)
    by_id = {one["id"]: one for one in truth}

    def root(one: dict[str, Any]) -> dict[str, Any]:
        return root(by_id[one["of"]]) if one["of"] is not None else one

    kept, gone = run([ExactDuplicates()], rows)
    exact = {row for row, one in enumerate(truth) if one["kind"] == "exact"}
    assert exact <= {one.origin.row for one, _ in gone}, "recall 1"
    rejected = decide(NearDuplicates(), kept).rejected
    found = {
        kept[index].origin.row: rejection.evidence["kept"]["origin"]["row"] for index, rejection in rejected.items()
    }
    for language in ("zh", "en"):
        # texts of two letters ("ok" with another answer) are planted as near-duplicates; by no measure they are
        near = {row for row, one in enumerate(truth)
                if one["lang"] == language and one["kind"] == "near" and root(one)["kind"] != "short"}  # fmt: skip
        remaining = near & {one.origin.row for one in kept}
        here = {row: keeper for row, keeper in found.items() if truth[row]["lang"] == language}
        right = [row for row, keeper in here.items() if root(truth[row])["id"] == root(truth[keeper])["id"]]
        assert len(remaining) > 150
        assert len(remaining & set(here)) / len(remaining) >= 0.99
        assert len(right) / len(here) >= 0.99


def test_short_texts_may_be_compared_for_equality_alone() -> None:
    rows = [example(f"{number}+4等于几？", str(number + 4)) for number in (2, 5, 2)]
    long = "请把下面这句话翻译成英文，并且说明每一个词的意思：今天下午我们要去火车站接从上海来的客人"
    rows += [example(long, "We go to the station."), example(long + "。", "We go to the station.")]
    found = decide(NearDuplicates(min_words=12), rows)
    assert set(found.rejected) == {2, 4}
    assert found.clusters is not None and found.clusters.tolist() == [0, 1, 0, 3, 3]
