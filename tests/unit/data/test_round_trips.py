"""Any conversation, written in a format and a kind of file and read back, gives the same messages."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_cases import workbook

from tests.unit.data.conftest import load_source
from tuneloop.core.conversation import Message, ToolCall

Record = dict[str, Any]
PAIRS = {"user": "human", "assistant": "gpt", "system": "system", "tool": "observation"}
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12).filter(
    str.strip
) | st.sampled_from(['{"a": 1}', "[1]", '"', "null", "a,b;c\td", "\u2028", "一\r\n二", "{{ x }}", "😀", "=1+1", "007"])
SPOKEN = TEXT.filter(str.strip)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
CALL = st.builds(ToolCall, name=TEXT, arguments=st.dictionaries(TEXT, JSON, max_size=2))


@st.composite
def conversations(draw: st.DrawFn, tools: bool = False) -> tuple[Message, ...]:
    """system?, then rounds of a question, perhaps a call and its result, and an answer."""
    messages = [Message("system", draw(SPOKEN))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages.append(Message("user", draw(SPOKEN)))
        if tools and draw(st.booleans()):
            messages.append(Message("assistant", "", tool_calls=tuple(draw(st.lists(CALL, min_size=1, max_size=2)))))
            messages.append(Message("tool", draw(SPOKEN)))
        messages.append(Message("assistant", draw(SPOKEN)))
    return tuple(messages)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trips")


def openai(messages: Sequence[Message]) -> Record:
    def turn(message: Message) -> Record:
        calls = [
            {"type": "function", "function": {"name": call.name, "arguments": json.dumps(call.arguments)}}
            for call in message.tool_calls
        ]
        return {"role": message.role, "content": message.content, **({"tool_calls": calls} if calls else {})}

    return {"messages": [turn(message) for message in messages]}


def sharegpt(messages: Sequence[Message]) -> Record:
    turns: list[Record] = []
    for message in messages:
        if message.tool_calls:
            calls = [{"name": call.name, "arguments": call.arguments} for call in message.tool_calls]
            turns.append({"from": "function_call", "value": json.dumps(calls, ensure_ascii=False)})
        else:
            turns.append({"from": PAIRS[message.role], "value": message.content})
    return {"conversations": turns}


def alpaca(messages: Sequence[Message]) -> Record:
    system = messages[0].content if messages[0].role == "system" else ""
    spoken = [message.content for message in messages if message.role != "system"]
    rounds = [list(pair) for pair in zip(spoken[::2], spoken[1::2], strict=True)]
    return {"instruction": rounds[-1][0], "input": "", "output": rounds[-1][1], "system": system,
            "history": rounds[:-1]}  # fmt: skip


def prompt_response(messages: Sequence[Message]) -> Record:
    found = alpaca(messages)
    return {"prompt": found["instruction"], "response": found["output"], "system": found["system"],
            "history": found["history"]}  # fmt: skip


FORMATS: dict[str, Callable[[Sequence[Message]], Record]] = {
    "messages": openai, "sharegpt": sharegpt, "alpaca": alpaca, "prompt_response": prompt_response,
}  # fmt: skip
WITH_TOOLS = ("messages", "sharegpt")


def flat(record: Record) -> Record:
    """Lists as JSON text, as tables hold them."""
    return {key: json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
            for key, value in record.items()}  # fmt: skip


def csv_text(rows: Sequence[Record], delimiter: str = ",") -> str:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def written(folder: Path, kind: str, rows: list[Record]) -> str:
    """A file of that kind, or of CSV in that encoding."""
    suffix = kind if kind in ("jsonl", "json", "parquet", "xlsx") else "csv"
    path = folder / f"rows.{suffix}"
    if kind == "parquet":
        pl.DataFrame([flat(row) for row in rows], infer_schema_length=None).write_parquet(path)
    elif kind == "xlsx":
        workbook(path, {"S": [list(rows[0]), *(list(flat(row).values()) for row in rows)]})
    elif kind == "json":
        path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), "utf-8")
    elif kind == "jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    else:
        path.write_bytes(csv_text([flat(row) for row in rows]).encode(kind))
    return str(path)


def printable(text: str) -> str:
    return "".join(letter for letter in f"{text}." if letter.isprintable() or letter == "\n")


KINDS = ["jsonl", "json", "parquet", "utf-8", "utf-8-sig", "utf-16"]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10)
@given(data=st.data())
def test_any_conversation_comes_back(folder: Path, name: str, kind: str, data: st.DataObject) -> None:
    drawn = data.draw(st.lists(conversations(tools=name in WITH_TOOLS), min_size=1, max_size=3))
    found = load_source(written(folder, kind, [FORMATS[name](messages) for messages in drawn]))
    assert found.recognition.format == name and not found.drops
    assert [row.messages for row in found.examples] == drawn


@pytest.mark.parametrize("kind", [*KINDS, "gb18030", "xlsx"])
@settings(max_examples=15)
@given(rows=st.lists(st.tuples(SPOKEN, SPOKEN, SPOKEN), min_size=1, max_size=4))
def test_any_table_and_template_come_back(folder: Path, kind: str, rows: list[tuple[str, str, str]]) -> None:
    if kind == "xlsx":  # XML holds no control characters, and Excel no row of spaces
        rows = [(printable(q), printable(more), printable(a)) for q, more, a in rows]
    path = written(folder, kind, [{"标题": q, "正 文": more, "a": a} for q, more, a in rows])
    encoding = kind if kind == "gb18030" else "auto"
    by_name = load_source(path, columns={"prompt": "标题", "response": "a", "label": "正 文"}, encoding=encoding)
    assert [tuple(message.content for message in row.messages) for row in by_name.examples] == [
        (q, a) for q, _, a in rows
    ]  # fmt: skip
    assert [row.meta["label"] for row in by_name.examples] == [more for _, more, _ in rows]
    template = [
        {"role": "user", "content": '{{ 标题 }}|{{ row["正 文"] }}'}, {"role": "assistant", "content": "{{ a }}"},
    ]  # fmt: skip
    by_template = load_source(path, template=template, encoding=encoding)
    assert [tuple(message.content for message in row.messages) for row in by_template.examples] == [
        (f"{q}|{more}", a) for q, more, a in rows
    ]  # fmt: skip


# short runs of a few letters are valid UTF-8, too: 一一 in GBK is һһ
CHINESE = st.text("的一是了我人在有他这中大来上国", max_size=20).map("请问这道题怎么做？{}".format)


@settings(max_examples=20)
@given(st.lists(st.tuples(CHINESE, CHINESE), min_size=2, max_size=6), st.sampled_from([",", ";", "\t"]))
def test_chinese_in_gbk_is_recognised(folder: Path, rows: list[tuple[str, str]], mark: str) -> None:
    text = csv_text([{"question": q, "answer": a} for q, a in rows], mark)
    path = folder / "gbk.csv"
    path.write_bytes(text.encode("gbk"))
    found = load_source(str(path))
    assert [tuple(message.content for message in row.messages) for row in found.examples] == rows


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "utf-8", "utf-16"])
@settings(max_examples=15)
@given(documents=st.lists(SPOKEN, min_size=1, max_size=4))
def test_any_document_comes_back(folder: Path, kind: str, documents: list[str]) -> None:
    found = load_source(written(folder, kind, [{"text": text} for text in documents]))
    assert found.recognition.format == "text"
    assert [row.messages for row in found.examples] == [(Message("text", text, train=1.0),) for text in documents]
