"""What the step `repair` brings back and takes out, and above all what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example as case
from hypothesis import given
from hypothesis import strategies as st
from stepping import run

from tuneloop.core.conversation import Example, Message, Origin, ToolCall
from tuneloop.data.mojibake import lost, restore, suspicious
from tuneloop.data.steps import STEPS, Rejection
from tuneloop.data.steps.repair import KINDS, Repair, repairs

CHINESE = "机器学习是人工智能的一个分支，它让计算机从数据中学习规律。“引用”——café、€5。"
TEXTS = (
    "你好",
    "中文",
    "你好，世界！",
    "我们在北京学习人工智能。",
    "繁體中文測試，這是一個測試。",
    "café — “quoted”",
    "Größe",
    "It’s a “test” — naïve",
    '这是一个包含 Python 3.10 代码 print("你好") 的例子。',
    "😀 你好 😀",
    CHINESE,
)


def conversation(*turns: str, **more: Any) -> Example:
    roles = ("user", "assistant") * len(turns)
    messages = tuple(Message(role, turn) for role, turn in zip(roles, turns, strict=False))  # type: ignore[arg-type]
    return Example(messages, Origin("s", 0), **more)


def look(example: Example, **options: Any) -> Example:
    found = Repair(**options).look(example)
    assert isinstance(found, Example), found
    return found


def misread(text: str, how: str) -> str:
    """The text as a program shows it that takes it for another encoding; bytes without a character stay as they are."""
    data = text.encode("gb18030" if how.startswith("gb18030") else "utf-8")
    if how.endswith("cp1252"):
        return "".join(bytes([code]).decode("cp1252", "ignore") or chr(code) for code in data)
    return data.decode("gb18030" if how == "gbk" else "latin-1")


@pytest.mark.parametrize("how", ["latin-1", "cp1252"])
@pytest.mark.parametrize("text", TEXTS)
def test_utf8_read_as_western(text: str, how: str) -> None:
    once = misread(text, how)
    assert repairs(once) == (text, ("mojibake",))
    assert restore(misread(once, how)) == text, "it happens twice, too"


@pytest.mark.parametrize("text", ["你好", "中文", "你好，世界！", "繁體中文測試", "人工智能", "深度学习模型"])
def test_utf8_read_as_gbk(text: str) -> None:
    broken = misread(text, "gbk")
    assert suspicious(broken)
    assert restore(broken) == text


def test_utf8_read_as_gbk_twice_and_in_one_line_of_many() -> None:
    broken = misread("你好，这是中文！", "gbk")
    assert restore(misread(broken, "gbk")) == "你好，这是中文！"
    assert restore(f"说明如下。\n{broken}") == "说明如下。\n你好，这是中文！"


@pytest.mark.parametrize("how", ["gb18030-latin-1", "gb18030-cp1252"])
@pytest.mark.parametrize(
    "text", ["你好，世界！", "我们在北京学习人工智能。", "繁體中文測試，這是一個測試。", "这是 code 的例子。", "数据集"]
)
def test_gbk_read_as_western(text: str, how: str) -> None:
    assert restore(misread(text, how)) == text


def test_pieces_of_mojibake_in_an_edited_text() -> None:
    broken = misread("两种方法都有其优缺点，选择使用哪一种", "latin-1")
    assert restore(f"{broken} xx é¢ the") == "两种方法都有其优缺点，选择使用哪一种 xx é¢ the"
    assert restore(f"{CHINESE}{misread('’s', 'cp1252')}") == f"{CHINESE}’s"


def test_quotes_that_lost_a_byte() -> None:
    assert restore("He said â€œhiâ€ and left") == "He said “hi” and left"
    assert restore("don鈥檛 do it") == "don’t do it"


@pytest.mark.parametrize(
    "text",
    [
        *TEXTS,
        "１２３ＡＢＣ，：；（）！？～“”‘’……——　　段首",
        "ﬁne ①②③ ㎏ ℃",
        "浏览璀璨瑜伽，橄榄和橄榄",
        "联通",
        "ÄÖÜäöüß",
        "ÀÁÂÃÄÅÆÇÈÉÊË",
        "[À-ÖØ-öø-ÿ]",
        "“fiancé”… and “café”—he said",
        "Il a dit «été» «né» à «ça»",
        "3 ×² 4",
        "5€”",
        "Привет, мир! Ещё раз.",
        "空が青い理由を簡単に説明してください。",
        "한국어 문장",
        "नमस्ते",
        "สวัสดี",
        "مرحبا، كيف حالك؟",
        "𠮷野家で、𝒳 ∈ ℝ",
        "👨\u200d👩\u200d👧 ❤\ufe0f 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "क्\u200dष می\u200cخواهم",
        "שלום \u200eabc\u200f",
        "ภาษา\u200bไทย",
        "a\tb\n\n  c ",
        "10\xa0000 € et 5\xa0% ; oui\xa0!",
        "a < b and c > d, x<y>z",
        "if (a && b) { return x < y; }",
        "List<String> names = new ArrayList<>();",
        "AT&T, R&D; Q&A",
        'p = &sum; scanf("%d", &num);',
        "```html\n<p>Hi</p><br>&nbsp;\n```",
        "Use `<br>` here",
        "<!DOCTYPE html>\n<html><body><p>Hi</p></body></html>",
        "<item><name>汤</name></item>",
        "<think>\n好\n</think>答案",
        "| a | b<br>c |\n|---|---|",
        "E = mc<sup>2</sup>",
        "$a<b$ 且 $c&d$",
        "<p>one",
        "<|im_start|>user",
        "|<td>x</td>|",
    ],
)
def test_what_people_write_stays(text: str) -> None:
    assert repairs(text) == (text, ())
    given = conversation(text, text, tools=({"name": "f", "description": text},), meta={"label": text})
    assert look(given) is given


@pytest.mark.parametrize(
    ("text", "mended", "kinds"),
    [
        ("a\x00b\x07c\x7f", "abc", ("control",)),
        ("\x1b[31mred\x1b[0m text", "red text", ("control",)),
        ("\x0crac{1}{2} \x08eta 3 \times 4", "\\frac{1}{2} \\beta 3 \\times 4", ("control",)),
        ("\x93quoted\x94", "“quoted”", ("mojibake",)),
        ("\ud83d\ude00", "😀", ("control",)),
        ("\ufeff你\u200b好\u2060\xad", "你好", ("invisible",)),
        ("a\u202eb\u2066c", "abc", ("invisible",)),
        ("hid\U000e0041\U000e0042den", "hidden", ("invisible",)),
        ("one\r\ntwo\rthree\u2028four\x0cfive", "one\ntwo\nthree\nfour\nfive", ("whitespace",)),
        ("park.\xa0 The\u2003end\u3000", "park.  The end\u3000", ("whitespace",)),
        ("Tom &amp; Jerry&#39;s &quot;show&quot;", 'Tom & Jerry\'s "show"', ("html",)),
        ("价格&nbsp;&lt;&nbsp;5", "价格 < 5", ("html", "whitespace")),
        ("第一行<br>第二行<br/>第三行", "第一行\n第二行\n第三行", ("html",)),
        ("<p>First.</p>\n<p>Second <b>one</b>.</p>", "First.\n\nSecond one.", ("html",)),
        ("<div class=\"a\">好<span style='x'>的</span></div>", "好的", ("html",)),
        ("&lt;p&gt;Hello&lt;/p&gt;", "Hello", ("html",)),
        ("<p>See:</p>\n```\n<p>\n```\n<p>Done</p>", "See:\n\n```\n<p>\n```\n\nDone", ("html",)),
    ],
)
def test_what_is_repaired(text: str, mended: str, kinds: tuple[str, ...]) -> None:
    assert repairs(text) == (mended, kinds)
    assert look(conversation("问题", text)).answer.content == mended


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_can_be_switched_off(kind: str) -> None:
    broken = {
        "mojibake": "cafÃ© â€”",
        "control": "a\x00b",
        "html": "A<br>B",
        "invisible": "a\u200bb",
        "whitespace": "a\r\nb",
    }
    given = conversation("q", broken[kind])
    assert look(given, **{kind: False}) is given
    assert look(given) is not given


@pytest.mark.parametrize(
    "question",
    ["Write this in HTML", "把它写成网页", "Which tags are there?", "怎么转义？", "Parse the page:\n<p>x</p>"],
)
def test_html_that_is_asked_for_stays(question: str) -> None:
    given = conversation(question, "<p>Tom &amp; Jerry</p><br>")
    assert look(given) is given
    assert look(conversation("Who?", "<p>Tom &amp; Jerry</p><br>")).answer.content == "Tom & Jerry"


def test_what_a_tool_answers_keeps_its_tags() -> None:
    given = Example(
        (Message("user", "q"), Message("tool", "<p>a</p><br>\ufeff"), Message("assistant", "a")), Origin("s", 0)
    )
    assert look(given).messages[1].content == "<p>a</p><br>"


def test_calls_reasoning_and_schemas() -> None:
    broken = misread("北京", "latin-1")
    call = ToolCall("weather", {"city": broken, "html": "<p>x</p>", "days": [1, broken]}, "id1")
    answer = Message("assistant", "", reasoning=broken, tool_calls=(call,))
    tools = ({"name": "weather", "description": broken, "parameters": {"x": "a\x00b"}},)
    found = look(Example((Message("user", "天气"), answer), Origin("s", 0), tools))
    assert found.answer.reasoning == "北京"
    assert found.answer.tool_calls == (
        ToolCall("weather", {"city": "北京", "html": "<p>x</p>", "days": [1, "北京"]}, "id1"),
    )
    assert found.tools == ({"name": "weather", "description": "北京", "parameters": {"x": "ab"}},)


def test_characters_that_are_lost_for_good() -> None:
    for answer in ("锟斤拷锟斤拷是什么意思", "the caf\ufffd is open", "half of a pair: \ud83d"):
        rejection = Repair().look(conversation("q", answer))
        assert isinstance(rejection, Rejection) and rejection.evidence["message"] == 1
        assert isinstance(Repair(lost="keep").look(conversation("q", answer)), Example)
    about = conversation("为什么会出现乱码？", "把 UTF-8 当成 GBK 的编码时会出现“锟斤拷”。")
    assert look(about) is about
    asked = conversation("the caf\ufffd", "A place.")
    assert look(asked) is asked, "what is only read is not learned"


def test_gbk_mojibake_that_lost_bytes_is_restored_as_far_as_it_goes() -> None:
    broken = "我们在北京学习人工智能。".encode().decode("gbk", "replace")
    assert "\ufffd" in broken
    restored = restore(broken)
    assert restored.startswith("我们在北") and lost(restored)
    assert isinstance(Repair().look(conversation("q", broken)), Rejection)


def test_a_text_that_shows_mojibake_keeps_it() -> None:
    text = "Read as Latin-1, the UTF-8 bytes of “café” look like cafÃ©: that is mojibake, and it is easy to see why."
    assert restore(text) == text


@given(st.text())
@case("\u1680\n\xa0")
def test_repairing_twice_changes_nothing_more(text: str) -> None:
    once, _ = repairs(text)
    assert repairs(once)[0] == once


@given(st.text(alphabet="<>/pbr &;amplt#39\x00\u200b\xa0\r\n`ä½å¥", max_size=40))
def test_repairing_odd_texts_twice_changes_nothing_more(text: str) -> None:
    once, _ = repairs(text)
    assert repairs(once)[0] == once


@given(st.text())
def test_a_text_that_looks_clean_is_clean(text: str) -> None:
    given = conversation("q", text)
    found = Repair(lost="keep").look(given)
    assert isinstance(found, Example)
    assert found.answer.content == repairs(text)[0]


def test_planted_mojibake_is_restored_and_nothing_else_changes(shared: Path) -> None:
    rows = [json.loads(line) for line in (shared / "planted/planted4k.jsonl").read_text("utf-8").split("\n") if line]
    broken = {row["id"] for row in rows if row["kind"] == "mojibake"}
    for _ in range(8):  # copies of broken rows, and copies of those
        broken |= {row["id"] for row in rows if row["of"] in broken}
    kept, gone = run([STEPS.make("repair")], [conversation(row["instruction"], row["output"]) for row in rows])
    assert not gone
    for row, found in zip(rows, kept, strict=True):
        if row["kind"] == "mojibake":
            assert found.answer.content == row["output"].encode("latin-1").decode("utf-8")
        elif row["id"] not in broken:
            assert found.answer.content == row["output"], row["id"]


def test_real_rows_have_three_defects(shared: Path) -> None:
    texts = [
        text
        for name in ("alpaca_en", "alpaca_zh")
        for row in json.loads((shared / f"alpaca/{name}.json").read_text("utf-8"))
        for text in (row["instruction"], row["input"], row["output"])
    ]
    assert [text for text in texts if look(conversation(text, text)).answer.content != text] == []
    lines = (shared / "gsm8k/train.jsonl").read_text("utf-8").split("\n")
    changed = [
        row
        for row, line in enumerate(filter(None, lines))
        if repairs((value := json.loads(line))["question"])[1] or repairs(value["answer"])[1]
    ]
    assert changed == [563, 2381, 2488], "a line separator and fixed spaces from a word processor"
