from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuneloop.core import jsonl
from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.core.errors import DataError
from tuneloop.evaluate.probes import LONGEST, accepted, asked, has_answer, is_prose, is_text, read_probes


def test_reads_rows_and_examples(tmp_path: Path) -> None:
    path = tmp_path / "probes.jsonl"
    example = Example(
        (Message("text", "法国的首都是", train=0.0), Message("text", "巴黎", train=1.0)),
        Origin("x", 0),
        meta={"kind": "c"},
    )
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    jsonl.write_lines(path, [
        {"prompt": "The capital of France is", "answer": " Paris", "kind": "c"}, example.to_json(),
        {"question": "How many days has a week?", "answer": ["seven", "7"]}, {"messages": chat}, {"text": "Prose."},
        {"question": "Why?"},
    ])  # fmt: skip
    first, second, several, messages, text, alone = read_probes(str(path))
    assert [m.content for m in first.prompt] == ["The capital of France is"] and first.answer.content == " Paris"
    assert first.meta == {"kind": "c"} and second == example and is_prose(first)
    assert accepted(several) == ["seven", "7"] and asked(several) == "How many days has a week?"
    assert messages.answer.content == "a" and not is_prose(messages) and has_answer(messages)
    assert is_text(text) and asked(text) == "Prose." and not has_answer(alone) and not is_text(alone)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no probes"), ([{"prompt": "x", "answer": " "}], "row 0"), ([{"answer": "x"}], "exactly one of"),
        ([{"prompt": "x", "question": "x", "answer": "y"}], "exactly one of"), ([{"prompt": 3}], "row 0"),
        ([{"question": "x", "answer": []}], "list of such texts"), ([{"messages": []}], "no messages"),
        ([{"messages": [{"content": "x"}]}], "role, content"),
    ],
)  # fmt: skip
def test_refuses_what_is_no_probe(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    path = tmp_path / "probes.jsonl"
    jsonl.write_lines(path, rows)
    with pytest.raises(DataError, match=message):
        read_probes(str(path))


def test_refuses_other_files(tmp_path: Path) -> None:
    (tmp_path / "probes.csv").write_text("a,b")
    with pytest.raises(DataError, match=r"\.jsonl file or a \.txt file"):
        read_probes(str(tmp_path / "probes.csv"))
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match="UTF-8"):
        read_probes(str(tmp_path / "latin.txt"))


def test_passages_are_cut_at_sentences_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    long = "这是一个句子。" * 400
    path.write_text(f"Short one.\n\n\n{long}\n\n{'x' * 2500}\n", "utf-8")
    passages = [example.answer.content for example in read_probes(str(path))]
    assert passages[0] == "Short one." and max(map(len, passages)) <= LONGEST
    assert "".join(passages[1:]) == long + "x" * 2500
    assert all(passage.endswith("。") for passage in passages[1:4])
