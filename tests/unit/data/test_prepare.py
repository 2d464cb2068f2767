"""The whole stage: every row is in exactly one file, with its reason; the same recipe gives the same bytes."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tuneloop.core import recipe
from tuneloop.core.conversation import Example
from tuneloop.core.errors import DataError, RecipeError
from tuneloop.core.runs import Run
from tuneloop.data.config import DataConfig
from tuneloop.data.facts import SPLITS
from tuneloop.data.prepare import Prepared, load_examples, prepare, prepare_in, source_files
from tuneloop.track import console

Write = Callable[..., str]
STEPS = ["exact_duplicates", {"length": {"min_words": 2, "max_words": 40}}]


@pytest.fixture
def stage(tmp_path: Path) -> Callable[..., tuple[Prepared, Path]]:
    def run_stage(seed: int = 0, **config: Any) -> tuple[Prepared, Path]:
        data = DataConfig.model_validate(config)
        run = Run.create(tmp_path / "runs", "prepare", "test", "sha256:0", {}, data)
        with run:
            return prepare(data, seed=seed, run=run), run.out

    return run_stage


@pytest.fixture
def collect(tmp_path: Path) -> Callable[..., Prepared]:
    """The stage without a run."""

    def run_stage(**config: Any) -> Prepared:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        return prepare_in(folder, DataConfig.model_validate(config), seed=0)

    return run_stage


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def pairs(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"question": f"What is 数 {number}?", "answer": f"It is {number}."} for number in range(start, start + count)
    ]


def test_every_row_is_accounted_for(stage: Callable[..., Any], write: Write) -> None:
    rows = [
        *pairs(300),
        *pairs(10),
        {"question": "x"},
        {"question": "long?", "answer": "w " * 99},
        {"question": "Empty?", "answer": " "},
    ]
    first = write("a.jsonl", rows)
    second = write("b.json", [{"instruction": "写一首诗", "input": "春", "output": "春眠不觉晓"}] * 2)
    prepared, out = stage(sources=[{"path": first}, {"path": second, "name": "poems"}], steps=STEPS)
    card = json.loads((out / "card.json").read_text("utf-8"))
    assert card == prepared.card
    assert card["rows"] == {
        "in": 315,
        "kept": 301,
        "repaired": 0,
        "dropped": {"prompt_response": 1, "answer": 1, "exact_duplicates": 11, "length": 1},
    }
    assert card["version"] == 1 and sum(card["splits"].values()) == 301
    kept = [row["origin"] for name in ("train", "val", "test") for row in lines(out / f"{name}.jsonl")]
    dropped = lines(out / "dropped.jsonl")
    places = [(origin["source"], origin["row"]) for origin in [*kept, *(drop["origin"] for drop in dropped)]]
    assert sorted(places) == sorted([(first, row) for row in range(313)] + [(second, row) for row in range(2)])
    assert Counter(drop["step"] for drop in dropped) == card["rows"]["dropped"]
    assert all(
        drop.keys() == {"example", "step", "reason", "origin", "evidence"} and drop["reason"] for drop in dropped
    )
    assert [source["rows"]["in"] for source in card["sources"]] == [313, 2]
    text = (out / "card.md").read_text("utf-8")
    assert "315 rows in = 301 kept + 14 dropped" in text and "| poems | alpaca |" in text


def test_written_examples_load_back_equal(stage: Callable[..., Any], write: Write) -> None:
    prepared, _ = stage(sources=[{"path": write("a.jsonl", pairs(50))}])
    for path in (prepared.train, prepared.val, prepared.test):
        assert [example.to_json() for example in load_examples(path)] == lines(path)
    with pytest.raises(DataError, match=r"no such file"):
        load_examples(Path("nowhere.jsonl"))
    with pytest.raises(DataError, match=r"a\.jsonl:1: not an Example"):
        load_examples(Path(write("a.jsonl", pairs(1))))


def test_the_same_recipe_gives_the_same_bytes(stage: Callable[..., Any], write: Write) -> None:
    sources = [{"path": write("a.jsonl", pairs(60)), "sample": 40}]
    outs = [stage(seed=seed, sources=sources, steps=STEPS)[1] for seed in (3, 3, 4)]
    contents = [{path.name: path.read_bytes() for path in out.iterdir()} for out in outs]
    assert contents[0] == contents[1] != contents[2]
    assert len(contents[0]) == 7


def test_limit_and_sample_are_said(stage: Callable[..., Any], write: Write) -> None:
    path = write("a.jsonl", pairs(60))
    prepared, out = stage(sources=[{"path": path, "limit": 20}])
    assert prepared.card["rows"]["in"] == 20 and prepared.card["sources"][0]["available"] == 60
    rows = [row["origin"]["row"] for name in ("train", "val", "test") for row in lines(out / f"{name}.jsonl")]
    assert sorted(rows) == list(range(20))
    assert "not_all_used" in [found["code"] for found in prepared.card["findings"]]


def test_own_files_are_left_whole_and_leave_train(stage: Callable[..., Any], write: Write) -> None:
    train, test = write("train.jsonl", pairs(100)), write("test.jsonl", [*pairs(5, 98), *pairs(1, 98)])
    prepared, out = stage(sources=[{"path": train}], test=[{"path": test}], steps=STEPS)
    assert prepared.card["splits"]["test"] == 6, "steps do not touch own test files"
    drops = lines(out / "dropped.jsonl")
    assert {98, 99} <= {drop["origin"]["row"] for drop in drops}, "10 may go too: it is nearly 100"
    assert {(drop["step"], drop["reason"]) for drop in drops} == {
        ("split", "says or asks the same as a row of test, or nearly")
    }
    assert prepared.card["splits"]["val"] > 0, "what has no file of its own is still split off"


def test_nothing_left_is_an_error_with_the_reasons_counted(
    stage: Callable[..., Any], write: Write, tmp_path: Path
) -> None:
    rows = [{"messages": [{"role": "user", "content": "?"}], "images": ["a.jpg"]}] * 3
    rows.append({"messages": [{"role": "user", "content": "?"}]})  # type: ignore[dict-item]
    with pytest.raises(
        DataError, match=r"no row is left(.|\n)*3 × messages: the row has images(.|\n)*1 × answer: no message"
    ):
        stage(sources=[{"path": write("a.jsonl", rows)}])
    (dropped,) = (tmp_path / "runs").glob("*/out/dropped.jsonl")
    assert len(lines(dropped)) == 4


def test_findings(collect: Callable[..., Prepared], write: Write) -> None:
    def codes(rows: list[dict[str, Any]], **options: Any) -> dict[str, str]:
        prepared = collect(sources=[{"path": write("a.jsonl", rows)}], **options)
        return {found["code"]: found["level"] for found in prepared.card["findings"]}

    assert codes(pairs(60)).items() >= {"small_test": "WARN", "roles": "INFO", "languages": "INFO"}.items()
    assert codes(pairs(60) * 2, steps=["exact_duplicates"])["many_dropped"] == "WARN"
    assert codes([{**row, "answer": "negative"} for row in pairs(30)])["one_answer"] == "WARN"
    assert codes([{**row, "answer": {"n": number}} for number, row in enumerate(pairs(30))])["decided"] == "INFO"
    assert "small_test" not in codes(pairs(60), split={"train": 1, "val": 0, "test": 0})
    assert "empty_test" in codes(pairs(1), split={"train": 0.98, "val": 0.01, "test": 0.01})


def test_files_of_steps_belong_to_what_the_result_depends_on(write: Write, tmp_path: Path) -> None:
    rows, exam = write("a.jsonl", pairs(3)), write("exam.jsonl", pairs(2))
    (tmp_path / "model").mkdir()
    write("model/tokenizer.json", "{}")
    steps = [
        {"contamination": {"against": [exam]}},
        {"length": {"tokenizer": str(tmp_path / "model"), "max_tokens": 9}},
    ]
    config = DataConfig.model_validate({"sources": [{"path": rows}], "steps": steps})
    assert [path.name for path in source_files(config)] == ["a.jsonl", "exam.jsonl", "tokenizer.json"]


def test_text_that_rich_takes_for_markup_is_only_text(stage: Callable[..., Any], write: Write) -> None:
    stage(
        sources=[
            {"path": write("a.jsonl", [{"question": f"[INST] {n} [/INST]", "answer": "[/bold]"} for n in range(9)])}
        ]
    )


def test_half_a_surrogate_pair_is_dropped(collect: Callable[..., Prepared], write: Write) -> None:
    path = write("a.jsonl", '{"question": "fine", "answer": "a"}\n{"question": "cut \\ud83d", "answer": "a"}\n')
    (drop,) = lines(collect(sources=[{"path": path}]).dropped)
    assert "surrogate" in drop["reason"]


def test_one_file_named_twice_keeps_its_ledger(collect: Callable[..., Prepared], write: Write) -> None:
    path = write("a.jsonl", pairs(10))
    sources = [{"path": path}, {"path": path, "format": "prompt_response"}]
    card = collect(sources=sources, steps=["exact_duplicates"]).card
    assert card["rows"]["in"] == 20 and card["rows"]["dropped"] == {"exact_duplicates": 10}


def test_recipe_errors_come_all_at_once_with_their_lines() -> None:
    text = """sources:
- path: a.jsonl
  formta: auto
  encoding: utf-99
- {path: b, limit: 3, sample: 3}
- {path: c, template: {prompt: "{{ a"}}
steps: [lenght, {length: {min_words: 9, max_words: 3}}]
split: {train: 0.9}
val: []
"""
    with pytest.raises(RecipeError) as error:
        recipe.load(DataConfig, recipe.parse_yaml(text, "r.yaml"))
    message = str(error.value)
    for part in (
        "r.yaml:3: unknown key 'sources.0.formta' (did you mean 'format'?)",
        "r.yaml:4: sources.0.encoding: no such encoding",
        "r.yaml:5: sources.1: give limit", "r.yaml:6: sources.2.template: the template for 'prompt'",
        "(did you mean 'length'?)", "min_words (9) is larger", "split: train 0.9 + val 0.1 + test 0.1 = 1.1, must be 1",
        "val: an empty list",
    ):  # fmt: skip
        assert part in message, message


def test_a_dumped_recipe_loads_back_equal() -> None:
    source = {"path": "a.csv", "format": "table", "columns": {"prompt": "q", "response": "r"}}
    config = DataConfig.model_validate({"sources": [source, {"path": "b.txt"}], "steps": STEPS})
    assert recipe.load(DataConfig, recipe.parse_yaml(recipe.dump(config), "r")) == config


# -- real data ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "name", "rows"),
    [
        ("alpaca/alpaca_zh.json", "alpaca", 600),
        ("toolcalls/sharegpt_toolcalls_zh.json", "sharegpt", 150),
        ("toolcalls/sharegpt_toolcalls_en.json", "sharegpt", 150),
        ("reasoning/tool_use_reasoning.jsonl", "messages", 25),
        ("gsm8k/train.jsonl", "prompt_response", 3000),
        ("planted/planted4k.jsonl", "alpaca", 4000),
    ],
)
def test_real_files_are_recognised_and_nothing_is_lost(
    collect: Callable[..., Prepared], shared: Path, path: str, name: str, rows: int
) -> None:
    collected = collect(sources=[{"path": str(shared / path)}])
    assert collected.recognitions[0].format == name
    assert collected.card["rows"]["in"] == rows
    assert set(collected.card["rows"]["dropped"]) <= {"answer"}


def test_real_tool_calls_survive_exactly(collect: Callable[..., Prepared], shared: Path) -> None:
    path = shared / "toolcalls/sharegpt_toolcalls_zh.json"
    prepared = collect(sources=[{"path": str(path)}], split={"train": 1, "val": 0, "test": 0})
    for example, raw in zip(load_examples(prepared.train), json.loads(path.read_text("utf-8")), strict=True):
        assert list(example.tools) == json.loads(raw["tools"])
        called = [json.loads(turn["value"]) for turn in raw["conversations"] if turn["from"] == "function_call"]
        found = [call for message in example.messages for call in message.tool_calls]
        assert [{"name": call.name, "arguments": call.arguments} for call in found] == called


@pytest.mark.parametrize("encoding", ["gb18030", "utf-8-sig"])
def test_real_chinese_in_other_encodings_is_the_same(
    collect: Callable[..., Prepared], shared: Path, write: Write, encoding: str
) -> None:
    original = shared / "alpaca/alpaca_zh.json"
    copy = write("copy.json", original.read_text("utf-8").encode(encoding))

    def ids(path: str) -> list[str]:
        return sorted(one.id for one in load_examples(collect(sources=[{"path": path}]).train))

    assert ids(copy) == ids(str(original))


def test_real_pictures_are_dropped_with_a_clear_reason(collect: Callable[..., Prepared], shared: Path) -> None:
    prepared = collect(sources=[{"path": str(shared / "multimodal/mllm_demo.json")}])
    assert not load_examples(prepared.train)
    reasons = {drop["reason"] for drop in lines(prepared.dropped)}
    assert reasons == {"the row has images: tuneloop trains on text only so far"}


PRIVATE = ["13800138000", "138-0013-8000", "zhangsan@qq.com", "ZY20231234"]


@pytest.mark.parametrize("action", ["mask", "drop"])
@pytest.mark.parametrize("first", [True, False])
def test_no_private_value_stays_in_the_run_folder(
    stage: Callable[..., Any], write: Write, action: str, first: bool
) -> None:
    """Whichever step or format dropped a row, before pii or after it; nor in the log, the card or the evidence."""
    told = "我叫张三，病历号：ZY20231234，邮箱 zhangsan@qq.com，电话 13800138000，请帮我预约门诊"
    rows = [
        {"question": told, "answer": "好的，稍后致电138-0013-8000。", "phone": 13800138000},
        {"question": told, "answer": "好的，稍后致电138-0013-8000。", "phone": 13800138000},  # a copy
        {"question": "电话 13800138000 是谁的？", "answer": ""},  # no answer
        {"question": None, "reply": "zhangsan@qq.com"},  # no row of the format
        {"question": "邮箱 zhangsan@qq.com 收到了吗？", "answer": "收"},  # too short
        *pairs(20),
    ]
    pii = {"pii": {"action": action}}
    others = ["exact_duplicates", {"length": {"min_words": 2}}, {"filter": {"keep": "'zhangsan' not in prompt"}}]
    source = {"path": write("a.jsonl", rows), "format": "prompt_response"}
    with console.logging_to(Path(write("log.txt", ""))):
        _, out = stage(sources=[source], steps=[pii, *others] if first else [*others, pii])
    files = [path for path in out.parent.rglob("*") if path.is_file()] + [out.parents[2] / "log.txt"]
    assert {"dropped.jsonl", "card.html", "log.txt"} < {path.name for path in files}
    for path in files:
        text = path.read_text("utf-8")
        assert not [value for value in PRIVATE if value in text], path
    assert "请帮我预约门诊" in (out.parents[2] / "log.txt").read_text("utf-8"), "the row is shown, without the values"
    drops = {drop["origin"]["row"]: drop for drop in lines(out / "dropped.jsonl")}
    assert "[PHONE]" in drops[2]["example"]["messages"][0]["content"] and drops[3]["example"]["reply"] == "[EMAIL]"
    assert drops[2]["example"]["id"] == Example.from_json(drops[2]["example"]).id, "no digest of the values either"
    if action == "drop" and first:
        (found,) = [drop["evidence"]["found"] for drop in drops.values() if drop["origin"]["row"] == 0]
        assert "00000000000" in {one["shape"] for one in found}, "the evidence keeps kinds and shapes"


def test_without_the_step_dropped_rows_stay_as_they_are(stage: Callable[..., Any], write: Write) -> None:
    _, out = stage(sources=[{"path": write("a.jsonl", [{"question": "电话 13800138000", "answer": ""}, *pairs(9)])}])
    (drop,) = lines(out / "dropped.jsonl")
    assert drop["example"]["messages"][0]["content"] == "电话 13800138000"


def test_a_source_that_is_only_trained_on(stage: Callable[..., Any], write: Write) -> None:
    domain, general = write("domain.jsonl", pairs(400)), write("general.jsonl", pairs(400, start=390))
    sources = [{"path": domain}, {"path": general, "name": "general", "train_only": True}]
    prepared, out = stage(sources=sources, split={"together": "equal"})
    where = {name: Counter(row["origin"]["source"] for row in lines(out / f"{name}.jsonl")) for name in SPLITS}
    assert where["train"][general] == 400 and not where["val"][general] and not where["test"][general]
    assert 20 < where["test"][domain] < 60 and sum(rows[domain] for rows in where.values()) == 400
    (found,) = [one for one in prepared.card["findings"] if one["code"] == "drawn_to_train"]
    assert found["count"] == 10 and found["level"] == "INFO", "the ten questions that both sources ask"
    assert {one["origin"]["source"] for one in found["examples"]} == {domain}
    assert [source["goes_to"] for source in prepared.card["sources"]] == ["any", "train"]
    assert "train only" in (out / "card.md").read_text("utf-8")
    assert "leak" not in str([one["code"] for one in prepared.card["findings"]])


@pytest.mark.parametrize(("config", "words"), [
    ({"sources": [{"path": "a.jsonl", "train_only": True}]}, "no row is left for val and test: give data.val"),
    ({"sources": [{"path": "a.jsonl"}], "val": [{"path": "b.jsonl", "train_only": True}]}, "is not trained on"),
])  # fmt: skip
def test_train_only_where_it_cannot_be(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        DataConfig.model_validate(config)
    DataConfig.model_validate({"sources": config["sources"], "split": {"train": 1, "val": 0, "test": 0}})
