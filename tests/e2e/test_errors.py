"""Bad input, typed at the command line: exit 2, no traceback, what is wrong with which value, and nothing lost."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shell import refused, start, tuneloop, write_recipe, write_rows

from tuneloop.core.runs import Run, all_runs

HOLDER = """
import sys, time
from pathlib import Path
from tuneloop.core.runs import Run
with Run.open(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
Make = Callable[..., Any]


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer_folder: Path, architecture: Make) -> Make:
    """`job(rows, **tune)`: rows.jsonl and recipe.yaml in the current folder, a new tiny model."""
    monkeypatch.chdir(tmp_path)

    def make(rows: list[Any] | None = None, **tune: Any) -> Path:
        model = {"architecture": architecture("llama"), "tokenizer": str(tokenizer_folder)}
        return write_recipe(tmp_path, model, rows, **tune).relative_to(tmp_path)

    return make


# -- the recipe --------------------------------------------------------------------------------------------------------
def test_every_unknown_key_and_wrong_type_at_once(job: Make) -> None:
    path = job()
    text = path.read_text().replace("batch_size: 4", "batchsize: 4").replace("max_length: 128", "max_length: long")
    path.write_text(f"{text}sede: 3\n")
    for command in ("run", "check", "preview", "prepare", "tune", "evaluate"):
        lines = refused(command, path).splitlines()
        assert len(lines) == 3
        for line, told in zip(
            lines,
            ("unknown key 'tune.batchsize' (did you mean 'batch_size'?)", "tune.max_length: must be a valid integer",
             "unknown key 'sede' (did you mean 'seed'?)"),
            strict=True,
        ):  # fmt: skip
            assert told in line and "recipe.yaml:" in line


def test_a_recipe_that_is_not_there_or_empty(job: Make, tmp_path: Path) -> None:
    assert "nothing.yaml: no such recipe file" in refused("run", "nothing.yaml")
    (tmp_path / "empty.yaml").touch()
    assert "empty.yaml: 'data' is required" in refused("run", "empty.yaml")


# -- the data ----------------------------------------------------------------------------------------------------------
GOOD = b'{"prompt": "Hello there", "response": "Hi"}\n'
MIXED = '{"prompt": "你好世界", "response": "再见"}\n'
BAD_FILES = {
    "missing": (None, "rows.jsonl: no such file"),
    "empty": (b"", "rows.jsonl is empty"),
    "blank": (b"\n\n", "rows.jsonl holds no rows"),
    "corrupt": (GOOD * 2 + b'{"prompt": "x", "respo', "rows.jsonl:3: not valid JSON"),
    "no object": (GOOD + b"[1, 2]\n", "rows.jsonl:2: expected a JSON object, found list"),
    "mixed encodings": (MIXED.encode() + MIXED.encode("gb18030"), "rows.jsonl: mixed encodings"),
    "no answer": (b'{"messages": [{"role": "user", "content": "hi"}]}\n' * 3, "3 rows were dropped"),
    "unknown format": (b'{"alpha": 1, "beta": 2}\n' * 3, "Its columns: alpha, beta"),
}


@pytest.mark.parametrize("command", ["prepare", "check", "preview"])
@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_data_files(job: Make, tmp_path: Path, kind: str, command: str) -> None:
    path = job()
    content, told = BAD_FILES[kind]
    (tmp_path / "rows.jsonl").unlink() if content is None else (tmp_path / "rows.jsonl").write_bytes(content)
    assert told in refused(command, path)


def test_rows_without_an_answer_are_listed_before_the_stage_gives_up(job: Make) -> None:
    refused("prepare", job([{"messages": [{"role": "user", "content": "hi"}]}] * 3))
    (run,) = all_runs(Path("runs"))
    assert run.status == "failed" and "no row is left to train on" in run.record["error"]
    dropped = [json.loads(line) for line in (run.out / "dropped.jsonl").read_text().splitlines()]
    assert [drop["origin"]["row"] for drop in dropped] == [0, 1, 2]


WAIVED = ("--set", "data.waive.truncated=to see what tuning says")


def test_rows_that_are_all_too_long(job: Make) -> None:
    told = refused("check", job(max_length=8))
    assert "can be trained on" in told and "max_length 8" in told
    told = refused("tune", job(max_length=8))
    assert "truncated: 100 %" in told and "max_length 8" in told
    told = refused("tune", job(max_length=8), *WAIVED)
    assert "can be trained on" in told and "max_length 8" in told


# -- the model ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def base(model_folder: Make, tmp_path: Path) -> Path:
    """A model folder of its own to break."""
    return Path(shutil.copytree(model_folder(), tmp_path / "base"))


def add_code(folder: Path) -> None:
    (folder / "modeling_mine.py").write_text("raise SystemExit('ran')")


def add_auto_map(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_mine.Mine"}
    (folder / "config.json").write_text(json.dumps(config))


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (add_code, "modeling_mine.py"),
        (add_auto_map, "auto_map"),
        (only_pickle, "pickle only"),
        (cut_weights, "the model cannot be loaded"),
        (no_tokenizer, "tokenizer"),
    ],
)
def test_models_that_are_unsafe_or_broken(base: Path, spoil: Make, told: str, tmp_path: Path) -> None:
    spoil(base)
    path = write_recipe(tmp_path, {"base": str(base)})
    assert told in refused("tune", path, "--runs", tmp_path / "runs")
    assert told in refused("chat", base, "-m", "hi")


def test_a_base_that_is_nowhere(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, {"base": "smollm2-135m-instrct"})
    assert "did you mean 'smollm2-135m-instruct'" in refused("check", path)
    assert "no base 'nonsense'" in refused("chat", "nonsense", "-m", "hi")


@pytest.fixture(scope="module")
def adapter(model_folder: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter on the tiny llama of seed 0."""
    folder = tmp_path_factory.mktemp("adapter")
    path = write_recipe(folder, {"base": str(model_folder())})
    answer = tuneloop(
        "tune", path, "--runs", folder / "runs", "--json", "--set", f"data.sources.0.path={folder}/rows.jsonl"
    )
    assert answer.code == 0, answer.err
    return Path(answer.json["run"]) / "out" / "adapter"


@pytest.mark.parametrize("command", ["check", "tune"])
def test_an_adapter_of_another_base(
    adapter: Path, model_folder: Make, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = write_recipe(tmp_path, {"base": str(model_folder()), "adapter": str(adapter)})
    assert tuneloop(command, own).code == 0
    other = write_recipe(tmp_path, {"base": str(model_folder(seed=1)), "adapter": str(adapter)})
    assert "does not fit" in refused(command, other)


# -- runs --------------------------------------------------------------------------------------------------------------
def test_a_run_that_another_process_works_on(job: Make) -> None:
    refused("tune", job(max_length=8), *WAIVED)
    path = all_runs(Path("runs"))[-1].path
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert "another process is using this run" in refused("tune", "--resume", path)
        assert tuneloop("runs", "list", "--json").json["runs"][-1]["status"] == "running"
        assert "in use, left alone" in tuneloop("runs", "clean", "--yes").err
        assert path.is_dir()
    finally:
        holder.kill()
        holder.communicate()


def test_what_cannot_be_resumed(job: Make) -> None:
    assert tuneloop("prepare", job()).code == 0
    assert "a 'prepare' run; only tune runs are resumed" in refused("tune", "--resume", "prepare")
    assert "no unfinished tune run" in refused("tune", "--resume", "latest")
    assert "no run 'yesterday'" in refused("tune", "--resume", "yesterday")


def test_runs_that_are_of_another_stage_or_missing(job: Make) -> None:
    assert tuneloop("prepare", job()).code == 0
    assert "report takes a finished evaluate run" in refused("report", "prepare")
    assert "merge takes a finished tune run" in refused("merge", "prepare")
    assert "--tuned takes a finished tune run" in refused("evaluate", "recipe.yaml", "--tuned", "prepare")
    assert "first: tuneloop tune" in refused("evaluate", "recipe.yaml")
    assert "no model to load" in refused("chat", "prepare", "-m", "hi")
    assert "no run '7f3a'" in refused("runs", "show", "7f3a")


def test_a_file_where_the_runs_should_lie(job: Make) -> None:
    assert "is a file, not a folder" in refused("prepare", job(), "--runs", "rows.jsonl")


def test_a_corrupt_record_is_named(job: Make) -> None:
    assert tuneloop("prepare", job()).code == 0
    (run,) = all_runs(Path("runs"))
    (run.path / "run.json").write_text('{"stage": ')
    assert "run.json: not valid JSON" in refused("runs", "list")


def test_rows_of_a_run_that_were_edited_are_named_with_their_line(job: Make) -> None:
    path = job()
    assert tuneloop("prepare", path).code == 0
    train = all_runs(Path("runs"))[0].out / "train.jsonl"
    lines = train.read_text().splitlines()
    train.write_text("\n".join([lines[0], lines[1][:-9], *lines[2:]]))
    assert "train.jsonl:2: not valid JSON" in refused("tune", path)


# -- stopping ----------------------------------------------------------------------------------------------------------
def test_a_stop_leaves_a_run_that_can_be_resumed(job: Make, tmp_path: Path) -> None:
    path = job(steps=20000, save_every=2)
    assert tuneloop("prepare", path).code == 0
    process = start("tune", path, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 60
        while not [file for file in tmp_path.glob("runs/*tune*/metrics.jsonl") if file.read_text().count("\n") >= 3]:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert out == "" and "Traceback" not in err and "Warning" not in err
    (run,) = [run for run in all_runs(Path("runs")) if run.stage == "tune"]
    assert f"continue with: tuneloop tune --resume runs/{run.path.name}" in err
    assert Run.open(run.path).status == "interrupted" and not run.done
    assert "is a tune run (interrupted); merge takes a finished tune run" in refused("merge", run.path)


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    process = start("schema", cwd=tmp_path)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait()
    process.stderr.close()


def test_an_own_file_of_rows_stays_as_it_is(job: Make) -> None:
    path = job()
    before = Path("rows.jsonl").read_bytes()
    write_rows(Path("other.jsonl"), [])
    assert tuneloop("prepare", path).code == 0
    assert Path("rows.jsonl").read_bytes() == before
