"""The branch `data.mix`: what it refuses, how sources are named, what `tune` is told; duplicates across sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from stepping import run

from tuneloop.core import recipe as loading
from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.core.errors import DataError
from tuneloop.data.mix import MixConfig, check_mix, write_mix
from tuneloop.data.steps import STEPS
from tuneloop.forward import mixing

SOURCES = {"support": "data/tickets.jsonl", "data/faq.csv": "data/faq.csv", "data/通用.jsonl": "data/通用.jsonl"}
EN = (
    "The warranty covers parts and labour for two years from the date of purchase, provided that the device was not "
    "opened by anyone but our service and that the serial number on its back can still be read without doubt."
)
ZH = "自购买之日起两年内，零件与人工费用均在保修范围之内，前提是设备未经他人拆开，且背面的序列号仍清晰可辨。"


def config(**values: Any) -> MixConfig:
    return MixConfig.model_validate(values)


def row(source: str, number: int, question: str, answer: str) -> Example:
    return Example((Message("user", question), Message("assistant", answer)), Origin(source, number))


def test_by_default_nothing_is_mixed(tmp_path: Path) -> None:
    assert not config().mixes and check_mix(config(), {}) == {}
    write_mix(config(), tmp_path, SOURCES)
    assert list(tmp_path.iterdir()) == [] and mixing.read(tmp_path) is None


@pytest.mark.parametrize(
    "values", [{"temperature": 2}, {"epoch_rows": 9}, {"weights": {"a": 1}}, {"replay": {"source": "a", "ratio": 0.5}}]
)
def test_each_option_mixes(values: dict[str, Any]) -> None:
    assert config(**values).mixes


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weights": {"a": 1}, "temperature": 2}, "not both"),
        ({"weights": {"a": 0, "b": 0.0}}, "all weights are 0"),
        ({"weights": {"a": -1}}, "greater than or equal to 0"),
        ({"weights": {"a": float("inf")}}, "finite"),
        ({"temperature": 0}, "greater than or equal to 0.1"),
        ({"temperature": float("nan")}, "temperature"),
        ({"replay": {"source": "a", "ratio": 1}}, "less than 1"),
        ({"replay": {"source": "a", "ratio": 0}}, "greater than 0"),
        ({"replay": {"ratio": 0.1}}, "source"),
        ({"epoch_rows": 0}, "greater than 0"),
    ],
)
def test_what_no_recipe_may_say(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**values)


def test_it_is_dumped_and_loads_back_equal() -> None:
    mixed = config(weights={"support": 3, "faq.csv": 1}, replay={"source": "通用.jsonl", "ratio": 0.1}, epoch_rows=99)
    assert loading.load(MixConfig, loading.parse_yaml(loading.dump(mixed), "again")) == mixed


def test_sources_are_named_by_label_path_or_file_name() -> None:
    for faq in ("faq.csv", "data/faq.csv"):
        found = check_mix(
            config(weights={"support": 3, faq: 1}, replay={"source": "通用.jsonl", "ratio": 0.2}), SOURCES
        )
        assert found == {"support": "data/tickets.jsonl", faq: "data/faq.csv", "通用.jsonl": "data/通用.jsonl"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weights": {"suport": 1}}, r"mix: no source 'suport' \(did you mean 'support'\?\); known: support, data/faq"),
        ({"weights": {"support": 1}}, r"no weight for data/faq\.csv, data/通用\.jsonl; 0 leaves a source out"),
        ({"weights": {"support": 1, "faq.csv": 1, "data/faq.csv": 1, "通用.jsonl": 1}}, "one source is named twice"),
        ({"weights": {"support": 1, "faq.csv": 1, "通用.jsonl": 1}, "replay": {"source": "faq.csv", "ratio": 0.1}},
         "the replayed source has no weight"),
    ],
)  # fmt: skip
def test_names_that_do_not_fit(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_mix(config(**values), SOURCES)


def test_sources_that_cannot_be_told_apart() -> None:
    folders = {"a/train.jsonl": "a/train.jsonl", "b/train.jsonl": "b/train.jsonl"}
    with pytest.raises(DataError, match=r"'train\.jsonl' fits 2 sources; give them a `name` each"):
        check_mix(config(replay={"source": "train.jsonl", "ratio": 0.1}), folders)
    with pytest.raises(DataError, match=r"'one' and 'two' are the same file a\.jsonl"):
        check_mix(config(temperature=2), {"one": "a.jsonl", "two": "a.jsonl"})
    with pytest.raises(DataError, match="there is no other source beside it"):
        check_mix(config(replay={"source": "a.jsonl", "ratio": 0.1}), {"a.jsonl": "a.jsonl"})


def test_what_tune_is_told(tmp_path: Path) -> None:
    mixed = config(weights={"support": 3, "faq.csv": 1}, replay={"source": "通用.jsonl", "ratio": 0.1}, epoch_rows=500)
    write_mix(mixed, tmp_path, SOURCES)
    assert mixing.read(tmp_path) == mixing.Mix(
        names={"data/tickets.jsonl": "support", "data/faq.csv": "faq.csv", "data/通用.jsonl": "通用.jsonl"},
        weights={"data/tickets.jsonl": 3.0, "data/faq.csv": 1.0},
        replay="data/通用.jsonl",
        ratio=0.1,
        epoch_rows=500,
    )
    write_mix(config(temperature=5), tmp_path, {path: path for path in ("a/train.jsonl", "b/train.jsonl", "c.jsonl")})
    told = mixing.read(tmp_path)
    assert told is not None and told.temperature == 5
    assert list(told.names.values()) == ["a/train.jsonl", "b/train.jsonl", "c.jsonl"], "short where that is clear"


# -- duplicates across sources: the first source keeps the row, so their order is their priority -----------------------
@pytest.mark.parametrize("domain_first", [True, False])
@pytest.mark.parametrize(
    ("step", "en_more", "zh_more"),
    [("exact_duplicates", "", ""), ("near_duplicates", " Please keep the receipt.", "请保留收据。")],
)
def test_duplicates_across_sources(step: str, en_more: str, zh_more: str, domain_first: bool) -> None:
    domain = [row("domain", 0, "How long is the warranty?", EN), row("domain", 1, "保修期多久？", ZH)]
    general = [
        row("general", 0, "Name a prime.", "Seven is one."),
        row("general", 1, "How long is the warranty?", EN + en_more),
        row("general", 2, "保修期多久？", ZH + zh_more),
    ]
    first, second = (domain, general) if domain_first else (general, domain)
    kept, gone = run([STEPS.make(step)], [*first, *second])
    same = general[1:] if domain_first else domain
    assert kept == [example for example in [*first, *second] if example not in same]
    assert [example for example, _ in gone] == same
