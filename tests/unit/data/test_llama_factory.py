"""dataset_info.json of LLaMA-Factory: entries become sources that read the same, and what that tool loses is said."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuneloop.core.conversation import JsonObject
from tuneloop.core.errors import DataError
from tuneloop.data.config import SourceConfig
from tuneloop.data.formats import FORMATS
from tuneloop.data.layout import Layout
from tuneloop.data.llama_factory import expand, expand_all, is_index
from tuneloop.data.llama_factory_lints import lint
from tuneloop.data.read import open_source

Index = Callable[..., str]
MESSAGES_TAGS = {
    "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
    "system_tag": "system", "observation_tag": "tool", "function_tag": "function",
}  # fmt: skip


@pytest.fixture
def index(write: Callable[..., str], tmp_path: Path) -> Index:
    """index(rows, **entry) -> the path of an entry `x` whose file holds the rows."""

    def writer(rows: list[Any], **entry: Any) -> str:
        write("x.json", rows)
        write("dataset_info.json", json.dumps({"x": {"file_name": "x.json", **entry}}))
        return f"{tmp_path}/dataset_info.json#x"

    return writer


def parsed(path: str) -> list[Any]:
    """The rows of an expanded path, as their formats read them."""
    out: list[Any] = []
    for source in expand(path):
        layout = Layout(source.columns, source.template, explicit=False)
        out += [source.format.parse(layout.apply(record)[0]) for record in open_source(source.path).records()]
    return out


def texts(path: str) -> list[list[tuple[str, str]]]:
    return [[(message.role, message.content) for message in parts.messages] for parts in parsed(path)]


def lints(path: str) -> dict[tuple[str, str], list[int]]:
    """Rows by code and reason."""
    return {
        (found["code"], found["message"].rpartition(": ")[2]): [one["row"] for one in found.get("examples", ())]
        for found in lint(path)
    }


# -- what an entry means -----------------------------------------------------------------------------------------------
def test_an_alpaca_entry_without_columns(index: Index) -> None:
    row = {"instruction": "i", "input": "n", "output": "o", "system": "s", "history": [["q", "a"]]}
    path = index([row])
    assert texts(path) == [[("user", "i\nn"), ("assistant", "o")]]
    assert parsed(path)[0].meta == {"system": "s", "history": [["q", "a"]]}
    assert lints(path) == {
        ("llama_factory_unread", '"system" to have it read'): [0],
        ("llama_factory_unread", '"history" to have it read'): [0],
    }
    assert '\'system\' is not among its columns; add "system": "system"' in lint(path)[0]["message"]
    assert "entry 'x'" in lint(path)[0]["message"] and "1 row (0)" in lint(path)[0]["message"]


def test_columns_leave_those_they_do_not_name_unread(index: Index) -> None:
    rows = [{"q": "1", "input": "2", "a": "3", "sys": "4", "h": [["5", "6"]], "t": "[]", "input2": ""}] * 7
    path = index(rows, columns={"prompt": "q", "response": "a", "system": "sys", "history": "h", "tools": "t"})
    assert texts(path)[0] == [
        ("system", "4"), ("user", "5"), ("assistant", "6"), ("user", "1"), ("assistant", "3"),
    ]  # fmt: skip
    assert parsed(path)[0].meta == {"input": "2", "input2": ""}
    (found,) = lint(path)
    assert (found["level"], found["code"], found["count"]) == ("WARN", "llama_factory_unread", 7)
    assert "7 rows (0, 1, 2, 3, 4, …)" in found["message"] and 'add "query": "input"' in found["message"]
    assert found["examples"] == [{"source": expand(path)[0].path, "row": row} for row in range(5)]


def test_pretraining_entries(index: Index, write: Callable[..., str], tmp_path: Path) -> None:
    assert texts(index([{"content": "Prose."}], columns={"prompt": "content"})) == [[("text", "Prose.")]]
    write("wiki.txt", "one\ntwo\n\nthree\n")
    write("dataset_info.json", json.dumps({"w": {"file_name": "wiki.txt", "columns": {"prompt": "text"}}}))
    path = f"{tmp_path}/dataset_info.json"
    assert texts(path) == [[("text", "one\ntwo")], [("text", "three")]]
    assert [found["code"] for found in lint(path)] == ["llama_factory_lines"]


CALL = json.dumps({"name": "f", "arguments": {"x": 1}})


def test_a_sharegpt_entry_with_the_usual_tags(index: Index) -> None:
    turns = [
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": CALL},
        {"from": "observation", "value": "1"},
        {"from": "gpt", "value": "a"},
    ]
    path = index(
        [{"conversations": turns, "tools": "[]", "system": "s"}],
        formatting="sharegpt", columns={"messages": "conversations", "tools": "tools", "system": "system"},
    )  # fmt: skip
    (parts,) = parsed(path)
    assert [message.role for message in parts.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert parts.messages[2].tool_calls[0].name == "f"
    assert lint(path) == []


def test_tags_name_roles_of_their_own(index: Index) -> None:
    """`function` is a tool's answer elsewhere, but an assistant's call where the tags say so."""
    turns = [
        {"role": "system", "content": "s"},
        {"role": "kunde", "content": "q"},
        {"role": "function", "content": CALL},
        {"role": "tool", "content": "1"},
        {"role": "客服", "content": "a"},
    ]
    path = index(
        [{"dialog": turns}], formatting="sharegpt", columns={"messages": "dialog"},
        tags={**MESSAGES_TAGS, "user_tag": "kunde", "assistant_tag": "客服"},
    )  # fmt: skip
    (parts,) = parsed(path)
    assert [message.role for message in parts.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert parts.messages[2].tool_calls[0].arguments == {"x": 1}
    assert lint(path) == []


def test_an_openai_entry(index: Index) -> None:
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}] * 2},
        {"role": "tool", "content": "1"},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "a"},
    ]
    path = index([{"messages": turns}], formatting="openai", columns={"messages": "messages"}, tags=MESSAGES_TAGS)
    (parts,) = parsed(path)
    assert [message.role for message in parts.messages] == ["user", "assistant", "tool", "tool", "assistant"]
    assert FORMATS.name_of(expand(path)[0].format) == "messages"
    assert lint(path) == []


def test_sources_carry_names_samples_and_hub_ids(write: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    write("shards/a.jsonl", [{"instruction": "q", "output": "a"}])
    write("shards/b.jsonl", [{"instruction": "q", "output": "a"}])
    entries = {
        "hub": {
            "hf_hub_url": "org/name",
            "ms_hub_url": "org/name",
            "subset": "en",
            "folder": "data/en",
            "split": "val",
        },
        "plain": {"hf_hub_url": "wiki_qa"},
        "shards": {"file_name": "shards", "num_samples": 5},
    }
    path = write("dataset_info.json", json.dumps(entries))
    hub, plain, shards = expand(f"{path}#hub, plain,shards")
    assert hub.path == "hf:org/name?config=en&folder=data/en#val"
    assert plain.path == "hf:wiki_qa#train"
    assert (shards.label, shards.sample, shards.path) == ("shards", 5, f"{tmp_path}/shards#*")
    assert open_source(shards.path).rows == 2
    (found,) = lint(f"{path}#shards")
    assert (found["code"], found["count"]) == ("llama_factory_repeats", 3)
    assert is_index(f"{path}#hub") and is_index(path) and not is_index(str(tmp_path))


def test_a_list_among_the_sources(index: Index) -> None:
    path = index([{"instruction": "q", "output": "a"}] * 3)
    other = SourceConfig(path="other.jsonl")
    expanded = expand_all([other, SourceConfig(path=path, limit=2, encoding="gb18030")])
    assert expanded[0] is other
    assert (expanded[1].limit, expanded[1].encoding, expanded[1].label) == (2, "gb18030", "x")
    for options in ({"format": "alpaca"}, {"columns": {"label": "x"}}, {"template": {"prompt": "x"}}):
        with pytest.raises(DataError, match="leave out format, columns and template"):
            expand_all([SourceConfig.model_validate({"path": path, **options})])


def test_media_of_an_entry_are_not_dropped_in_silence(index: Index) -> None:
    path = index(
        [{"messages": [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "a"}], "pics": ["a.jpg"]}],
        formatting="sharegpt", columns={"messages": "messages", "images": "pics"},
    )  # fmt: skip
    with pytest.raises(Exception, match="the row has images"):
        parsed(path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"ranking": True}, "does not name chosen, rejected among"),
        ({"columns": {"prompt": "p", "kto_tag": "label"}}, "holds single judgements"),
        ({"formating": "sharegpt"}, r"unknown key 'formating' \(did you mean 'formatting'\?\)"),
        ({"formatting": "chatml"}, "formatting 'chatml' is none of alpaca, sharegpt, openai"),
        ({"columns": {"promt": "q"}}, r"columns has the unknown key 'promt' \(did you mean 'prompt'\?\)"),
        ({"columns": {"query": "q"}}, "does not name prompt among its columns"),
        ({"formatting": "sharegpt", "columns": {"tools": "tools"}}, "does not name messages among"),
        ({"formatting": "sharegpt", "tags": {"user_tag": "user"}}, "does not name role_tag, content_tag among"),
        ({"file_name": None, "ms_hub_url": "org/name"}, "on ModelScope .* download it"),
        ({"script_url": "x.py"}, "behind a script, which tuneloop does not run"),
        ({"split": "validation"}, "a file has no split 'validation'"),
        ({"split": "train[:10%]"}, "a part of a split"),
    ],
)
def test_entries_that_cannot_be_used(index: Index, entry: JsonObject, message: str) -> None:
    with pytest.raises(DataError, match=message):
        expand(index([{"instruction": "q", "output": "a"}], **entry))


def test_lists_that_cannot_be_used(write: Callable[..., str], tmp_path: Path) -> None:
    path = write("dataset_info.json", '{"a": {"file_name": "a.json"}, "b": 1}')
    with pytest.raises(DataError, match=r"say which data sets are meant, as .*#name1,name2; it lists a, b"):
        expand(path)
    with pytest.raises(DataError, match="lists no data set 'c'"):
        expand(f"{path}#a,c")
    with pytest.raises(DataError, match="'b' is no object"):
        expand(f"{path}#b")
    with pytest.raises(DataError, match="no such file"):
        expand(f"{tmp_path}/none/dataset_info.json#a")
    with pytest.raises(DataError, match=r"a\.json: no such file"):
        lint(f"{path}#a")
    with pytest.raises(DataError, match="give its folder"):
        expand(write("dataset_info.json", '{"features": {}}'))


# -- what LLaMA-Factory loses ------------------------------------------------------------------------------------------
def pairs(*roles: str) -> JsonObject:
    return {"messages": [{"role": role, "content": f"{number}"} for number, role in enumerate(roles)]}


ORDERS = {
    ("system", "user", "assistant"): None,
    ("user", "assistant", "user", "assistant"): None,
    ("user", "user", "assistant"): "two turns of the user's side in a row",
    ("user", "assistant", "assistant"): "two turns of the assistant's side in a row",
    ("assistant", "user", "assistant"): "it begins with the assistant",
    ("user", "assistant", "user"): "it ends with the user",
    ("developer", "user", "assistant"): "the role 'developer' has no tag",
    ("user", "system", "assistant"): "a system message that is not the first",
}


@pytest.mark.parametrize("formatting", ["sharegpt", "openai"])
def test_rows_whose_turns_do_not_take_turns(index: Index, formatting: str) -> None:
    rows = [pairs(*roles) for roles in ORDERS]
    path = index(rows, formatting=formatting, columns={"messages": "messages"}, tags=MESSAGES_TAGS)
    expected: dict[tuple[str, str], list[int]] = {}
    for row, reason in enumerate(ORDERS.values()):
        if reason:
            expected.setdefault(("llama_factory_drops", reason), []).append(row)
    assert lints(path) == expected
    assert len(parsed(path)) == len(rows), "tuneloop reads all of them"


def test_a_tool_result_at_the_end_and_roles_without_a_tag(index: Index) -> None:
    rows = [pairs("user", "function", "tool"), pairs("user", "assistant", "tool", "assistant")]
    rows[0]["messages"][1]["content"] = CALL
    tags = MESSAGES_TAGS
    options: JsonObject = {"columns": {"messages": "messages"}}
    sharegpt = index(rows, formatting="sharegpt", tags=tags, **options)
    assert lints(sharegpt) == {("llama_factory_drops", "it ends with a tool result"): [0]}
    openai = index(rows, formatting="openai", tags=tags, **options)
    assert lints(openai) == {("llama_factory_loses", "a tool result at the end"): [0]}
    few = {key: tag for key, tag in tags.items() if key != "observation_tag"}
    assert lints(index(rows[1:], formatting="sharegpt", tags=few, **options)) == {
        ("llama_factory_drops", "the role 'tool' has no tag"): [0]
    }


def test_text_beside_tool_calls_is_lost(index: Index) -> None:
    row = pairs("user", "assistant", "tool", "assistant")
    row["messages"][1]["tool_calls"] = [{"function": {"name": "f", "arguments": "{}"}}]
    options: JsonObject = {"columns": {"messages": "messages"}}
    tags = MESSAGES_TAGS
    assert lints(index([row], formatting="openai", tags=tags, **options)) == {
        ("llama_factory_loses", "text beside tool_calls"): [0]
    }
    few = {key: tag for key, tag in tags.items() if key != "function_tag"}
    row["messages"][1]["content"] = ""
    assert lints(index([row], formatting="openai", tags=few, **options)) == {
        ("llama_factory_loses", "function_tag is not among its tags"): [0]
    }
    assert lints(index([row], formatting="sharegpt", tags=tags, **options)) == {
        ("llama_factory_loses", "tool_calls are read under formatting openai only"): [0]
    }


def test_answers_that_are_no_text_are_dropped(index: Index) -> None:
    rows = [{"instruction": "q", "output": answer} for answer in ("a", {"x": 1}, 5, None)]
    found = lints(index(rows, columns={"prompt": "instruction", "response": "output", "history": "h"}))
    assert found == {
        ("llama_factory_drops", f"the answer is no text but {kind}"): [row]
        for row, kind in ((1, "dict"), (2, "int"), (3, "NoneType"))
    }
    history = [{"instruction": "q", "output": "a", "h": '[["q", "a"]]'}]
    path = index(history, columns={"prompt": "instruction", "response": "output", "history": "h"})
    assert lints(path) == {("llama_factory_loses", "the history is no list but str"): [0]}
    assert len(texts(path)[0]) == 4


def test_the_demo_data_of_llama_factory(shared: Path, write: Callable[..., str]) -> None:
    entries = {
        "alpaca_zh_demo": {"file_name": str(shared / "alpaca/alpaca_zh.json")},
        "glaive_toolcall_zh_demo": {
            "file_name": str(shared / "toolcalls/sharegpt_toolcalls_zh.json"), "formatting": "sharegpt",
            "columns": {"messages": "conversations", "tools": "tools"},
        },
    }  # fmt: skip
    path = write("dataset_info.json", json.dumps(entries))
    found = parsed(f"{path}#alpaca_zh_demo,glaive_toolcall_zh_demo")
    assert Counter(bool(parts.tools) for parts in found)[True] > 100
    assert len(found) == 750
    assert all(parts.messages for parts in found)
