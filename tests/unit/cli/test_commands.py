"""Each command as a newcomer types it, on a job of two steps."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from shell import Answer, refused, tuneloop, write_recipe, write_rows

from tuneloop.core import recipe
from tuneloop.core.runs import Run, all_runs
from tuneloop.flows.recipe import Recipe, load_recipe


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path, architecture: Any) -> tuple[Path, Answer]:
    """A folder in which `tuneloop run recipe.yaml --json` was typed, and its answer."""
    folder = tmp_path_factory.mktemp("desk")
    write_recipe(folder, {"architecture": architecture("llama"), "tokenizer": str(tokenizer_folder)})
    here = Path.cwd()
    os.chdir(folder)
    try:
        return folder, tuneloop("run", "recipe.yaml", "--json")
    finally:
        os.chdir(here)


@pytest.fixture(autouse=True)
def inside(desk: tuple[Path, Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk[0])


def ok(*arguments: object) -> Answer:
    answer = tuneloop(*arguments)
    assert answer.code == 0, answer.err
    assert "Warning" not in answer.err
    return answer


# -- the job -----------------------------------------------------------------------------------------------------------
def test_run_ends_with_one_json_object_and_a_table_for_people(desk: tuple[Path, Answer]) -> None:
    answer = desk[1]
    assert answer.code == 0, answer.err
    assert len(answer.out.splitlines()) == 1
    assert list(answer.json["runs"]) == ["prepare", "tune", "evaluate"]
    assert Path(answer.json["report"]).is_file()
    assert all(Run.open(Path(path)).done for path in answer.json["runs"].values())
    for word in ("exact_match", "rows", "exported", "report.html"):
        assert word in answer.err
    assert "Warning" not in answer.err and "Writing model" not in answer.err


def test_a_finished_job_is_not_run_again_unless_it_is_asked_for(desk: tuple[Path, Answer], tmp_path: Path) -> None:
    again = ok("run", "recipe.yaml", "--json")
    assert again.json == desk[1].json
    assert again.err.count("already done") == 3
    changed = ok("prepare", "recipe.yaml", "--set", "data.split.train=0.7", "--set", "data.split.test=0.2", "--json")
    assert changed.json["run"] != again.json["runs"]["prepare"]
    assert ok("prepare", "recipe.yaml", "--again", "--json").json["run"] != again.json["runs"]["prepare"]


def test_the_recipe_in_a_run_folder_is_the_recipe(desk: tuple[Path, Answer]) -> None:
    stored = Path(desk[1].json["runs"]["tune"]) / "recipe.yaml"
    assert load_recipe(stored) == load_recipe(Path("recipe.yaml"))


def test_prepare_accounts_for_every_row(tmp_path: Path) -> None:
    card = ok("prepare", "recipe.yaml", "--json").json["card"]
    assert card["rows"]["in"] == card["rows"]["kept"] + sum(card["rows"]["dropped"].values()) == 40
    assert sum(card["splits"].values()) == card["rows"]["kept"]


def test_check_starts_nothing(desk: tuple[Path, Answer]) -> None:
    before = len(all_runs(Path("runs")))
    answer = ok("check", "recipe.yaml", "--json")
    found = answer.json
    assert found["fits"] is True and found["steps"] == 2 and 0 < found["supervised_tokens"] < found["tokens"]
    assert found["trainable_parameters"] < found["parameters"]
    assert "memory" in answer.err and "learnt" in answer.err
    assert len(all_runs(Path("runs"))) == before


def test_preview_shows_ids_tokens_and_weights(tmp_path: Path) -> None:
    rows = ok("preview", "recipe.yaml", "-n", 2, "--html", tmp_path / "p.html", "--json").json["rows"]
    assert len(rows) == 2
    for row in rows:
        assert len(row["ids"]) == len(row["tokens"]) == len(row["weights"])
        learnt = "".join(token for token, weight in zip(row["tokens"], row["weights"], strict=True) if weight)
        assert learnt.endswith("<|im_end|>") and learnt.removesuffix("<|im_end|>").isdecimal()
    assert (tmp_path / "p.html").read_text("utf-8").startswith("<!doctype html>")


# -- what came of it ---------------------------------------------------------------------------------------------------
def test_report_shows_the_numbers_again(desk: tuple[Path, Answer]) -> None:
    latest = ok("report", "latest", "--json")
    assert latest.json == json.loads((Path(desk[1].json["report"]).parent / "report.json").read_text("utf-8"))
    assert "exact_match" in latest.err
    assert "report takes a finished evaluate run" in refused("report", desk[1].json["runs"]["tune"])


def test_chat_answers_on_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ok("chat", "latest", "-m", "Add 1 and 2.", "-m", "And 3?", "--max-new-tokens", 3, "--json")
    assert len(asked.json["answers"]) == 2
    assert asked.out.startswith(asked.json["answers"][0])
    lines = iter(["Add 1 and 2.\n", "\n", "And 3?\n"])
    monkeypatch.setattr("sys.stdin", type("Pipe", (), {"isatty": lambda self: False, "__iter__": lambda self: lines})())
    assert ok("chat", "latest", "--max-new-tokens", 3).out == "".join(f"{text}\n" for text in asked.json["answers"])


def test_merge_writes_a_standard_folder_once(tmp_path: Path) -> None:
    out = tmp_path / "merged"
    found = ok("merge", "latest", "--out", out, "--json").json
    assert found["folder"] == str(out)
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= set(os.listdir(out))
    (out / "mine.txt").touch()
    assert "merge never overwrites" in refused("merge", "latest", "--out", out)
    assert (out / "mine.txt").is_file()
    assert "known are bf16" in refused("merge", "latest", "--out", tmp_path / "new", "--dtype", "int8")


def test_runs_are_listed_and_shown(desk: tuple[Path, Answer]) -> None:
    listed = ok("runs", "list", "--json")
    assert [row["stage"] for row in listed.json["runs"]][:3] == ["prepare", "tune", "evaluate"]
    assert {row["status"] for row in listed.json["runs"]} == {"done"}
    shown = ok("runs", "show", desk[1].json["runs"]["tune"], "--json")
    assert shown.json["stage"] == "tune" and "adapter/adapter_model.safetensors" in shown.json["outputs"]
    assert "adapter/adapter_model.safetensors" in shown.err and "transformers" in shown.err


def test_clean_deletes_only_when_it_is_told_to(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    assert "nothing to delete" in ok("runs", "clean", "--runs", root).err
    refused("tune", "recipe.yaml", "--runs", root, "--set", "tune.max_length=8", "--set", "data.waive.truncated=a test")
    said = ok("runs", "clean", "--runs", root, "--json")
    assert len(said.json["runs"]) == 1 and not said.json["deleted"] and "would delete" in said.err
    assert len(all_runs(root)) == 2
    ok("runs", "clean", "--runs", root, "--yes")
    assert [run.stage for run in all_runs(root)] == ["prepare"]


def test_errors_of_the_data_stop_training_unless_waived_with_a_reason(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Which card has customer {n}?", "response": f"4111 1111 1111 1111, since {n}."} for n in range(40)
    ]
    leaky = (
        "tune",
        "recipe.yaml",
        "--runs",
        tmp_path,
        "--set",
        f"data.sources.0.path={write_rows(tmp_path / 'a.jsonl', rows)}",
    )
    said = refused(*leaky)
    assert "bank_card" in said and "data: {waive: {pii: <why>}}" in said
    assert [run.stage for run in all_runs(tmp_path)] == ["prepare"], "no run was begun"
    assert "add the step pii" in said, "what to do next stands beside it"
    also = ("--set", "data.waive.leak=misspelt")
    waived = ok(*leaky, "--json", "--set", "data.waive.pii=the numbers are made up", *also)
    assert "the numbers are made up" in waived.err
    assert "leak: the data has no ERROR of this name" in " ".join(waived.err.split())
    assert "the numbers are made up" in (Path(waived.json["run"]) / "recipe.yaml").read_text("utf-8")


def test_audit_of_a_recipe_and_of_files(tmp_path: Path) -> None:
    found = ok("audit", "recipe.yaml", "--json")
    assert (Path(found.json["run"]) / "out" / "card.html").is_file()
    assert "card.html" in found.err
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": f"Say {n}", "response": "13800138000"} for n in range(30)])
    alone = ok("audit", rows, "--runs", tmp_path / "runs", "--set", "data.steps=[exact_duplicates]", "--json").json
    assert alone["card"]["rows"]["in"] == 30
    assert "one_answer" in {one["code"] for one in alone["card"]["findings"]}
    assert "not both" in refused("audit", "recipe.yaml", rows)
    some = ok("audit", rows, "--runs", tmp_path / "runs", "--set", "data.sources.0.limit=20", "--json")
    assert some.err.count("of 30 rows used") == 1, "each finding is said once"


def test_lists_of_nothing_say_what_to_do(tmp_path: Path) -> None:
    assert "`tuneloop demo` makes the first" in ok("runs", "list", "--runs", tmp_path / "none").err
    assert "no run" in refused("runs", "show", "latest", "--runs", tmp_path / "none")


# -- reference ---------------------------------------------------------------------------------------------------------
def test_list_shows_plugins_with_their_options() -> None:
    methods = ok("list", "methods", "--json")
    known = {plugin["name"]: plugin for plugin in methods.json["methods"]}
    assert {"full", "lora", "prompt"} <= known.keys() and list(known) == sorted(known)
    options = {option["name"]: option for option in known["lora"]["options"]}
    assert options["rank"]["default"] == 16 and options["rank"]["about"]
    assert "rank" in methods.err and "(default: 16)" in methods.err
    assert {"formats", "steps", "methods", "metrics"} <= set(ok("list", "--json").json)
    assert "did you mean 'methods'" in refused("list", "metods")


def test_bases_are_listed_with_licence_and_the_next_command() -> None:
    answer = ok("bases", "--json")
    assert {"embedded", "smollm2-135m-instruct"} <= {row["name"] for row in answer.json["bases"]}
    assert "apache-2.0" in answer.err
    assert "no known base 'smolm2'" in refused("bases", "get", "smolm2")


def test_schema_is_the_same_on_one_line_and_on_many() -> None:
    assert ok("schema", "--json").json == json.loads(ok("schema").out)


def test_pretraining_takes_documents_and_trains_all_weights(
    tmp_path: Path, tokenizer_folder: Path, architecture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_recipe(tmp_path, {"architecture": architecture("llama"), "tokenizer": str(tokenizer_folder)})
    assert "pretrain takes documents" in refused("pretrain", path, "--runs", tmp_path / "runs")
    write_rows(tmp_path / "rows.jsonl", [{"text": f"The sum of {n} and 1 is {n + 1}."} for n in range(40)])
    found = ok("pretrain", path, "--runs", tmp_path / "runs", "--json").json
    assert (Path(found["model"]) / "model.safetensors").is_file()
    stored = load_recipe(Path(found["run"]) / "recipe.yaml")
    assert recipe.dump(stored.tune).startswith("method:\n  full:") and isinstance(stored, Recipe)


def test_preview_and_check_show_both_answers_of_a_pair(desk: tuple[Path, Answer], tmp_path: Path) -> None:
    """As they are trained on: only the last answer is, of each side."""
    (tmp_path / "pairs.jsonl").write_text("".join(
        json.dumps({"prompt": [{"role": "user", "content": f"Hi {n}"}, {"role": "assistant", "content": "Hello"},
                               {"role": "user", "content": f"{n} and 1?"}],
                    "chosen": [{"role": "assistant", "content": f"is {n + 1}"}],
                    "rejected": [{"role": "assistant", "content": f"is {n}"}]}) + "\n" for n in range(20)
    ))  # fmt: skip
    values = recipe.read_yaml(desk[0] / "recipe.yaml").value
    values["data"] = {"sources": [{"path": str(tmp_path / "pairs.jsonl")}]}
    values["tune"] = {**values.get("tune", {}), "objective": {"orpo": 0.1}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(values))
    rows = ok("preview", tmp_path / "recipe.yaml", "-n", 1, "--json").json["rows"]
    learnt = ["".join(t for t, w in zip(r["tokens"], r["weights"], strict=True) if w) for r in rows]
    assert len(rows) == 2 and learnt[0].startswith("is ") and learnt[1].startswith("is ") and learnt[0] != learnt[1]
    assert ok("check", tmp_path / "recipe.yaml", "--json").json["unrenderable"] == 0
