"""Every tracker gets every step of a training, offline, and goes on with the same record when the run is resumed."""

from __future__ import annotations

import importlib.util
import json
import re
import sqlite3
import struct
import time
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from toy import counting_rows, job_of

from tuneloop.core import docstrings
from tuneloop.core.errors import MissingExtra
from tuneloop.track import metrics
from tuneloop.track.config import TrackConfig
from tuneloop.track.metrics import Metrics, Tracking
from tuneloop.track.trackers import TRACKERS
from tuneloop.tune.loop import train
from tuneloop.tune.validation import Measured

Curve = dict[int, float]
ODD = "<script>alert(1)</script> | a *b* | `c`\n| --- | [x](javascript:1) &lt;"
ANSWER = {"id": "1", "prompt": [{"role": "user", "content": "问？"}], "reference": "好", "answer": ODD}


def read_tensorboard(runs: Path, run: Path) -> Curve:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {event.step: event.value for event in events.Scalars("loss")}


def read_wandb(runs: Path, run: Path) -> Curve:
    import wandb
    from wandb.proto import wandb_internal_pb2

    # finish() tells W&B's own process to close the file and does not wait; this waits, as the end of a process does
    wandb.teardown()
    assert list(run.glob("wandb/offline-run-*/files/media/table/answers*")), "the table of answers"
    found: Curve = {}
    for file in sorted(run.glob("wandb/offline-run-*/run-*.wandb")):
        for data in _records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                row = {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
                found[row["_step"]] = row["loss"]
    return found


def _records(data: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log: blocks of 32 KiB, each piece with its checksum, length and kind before it."""
    place, whole = 7, b""  # W&B's own header
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, last piece
            yield whole
            whole = b""


def read_mlflow(runs: Path, run: Path) -> Curve:
    with sqlite3.connect(runs / "mlflow.db") as base:
        assert base.execute("select count(*) from runs").fetchone() == (1,), "one record for one run"
        assert base.execute("select status from runs").fetchone() == ("FINISHED",)
        assert ("tune.epochs", "3") in base.execute("select key, value from params").fetchall()
        return dict(base.execute("select step, value from metrics where key = 'loss'").fetchall())


def read_trackio(runs: Path, run: Path) -> Curve:
    (file,) = (runs / "trackio").glob("*.db")
    with sqlite3.connect(file) as base:
        rows = base.execute("select step, metrics from metrics order by id").fetchall()
    values = [(step, json.loads(text)) for step, text in rows]
    assert sum("answers" in row for _, row in values) == 2
    return {step: row["loss"] for step, row in values if "loss" in row}


READERS = {"tensorboard": read_tensorboard, "wandb": read_wandb, "mlflow": read_mlflow, "trackio": read_trackio}


@pytest.mark.parametrize("name", TRACKERS.names())
def test_the_whole_curve_arrives_and_goes_on_after_a_resume(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tracker = TRACKERS.make(name)
    if importlib.util.find_spec(tracker.package) is None:
        pytest.skip(f"{tracker.package} is not installed")
    monkeypatch.delenv("TRACKIO_DIR", raising=False)
    run = tmp_path / "runs" / "20261122-tune"
    run.mkdir(parents=True)
    tracking = Tracking([tracker], "toys", {"tune": {"epochs": 3, "method": {"lora": {"rank": 4}}}})
    with pytest.raises(KeyboardInterrupt), Metrics(run, 0, tracking) as first:
        for step in (1, 2, 3):
            first.write({"step": step, "epoch": 0.1, "loss": 1 / step, "val_loss": float("nan"), "note": "text"})
        raise KeyboardInterrupt
    time.sleep(1.1)  # W&B names offline folders by the second
    with Metrics(run, 2, tracking) as second:  # the checkpoint was at step 2
        for step in (3, 4):
            second.write({"step": step, "epoch": 0.1, "loss": 1 / step}, [ANSWER])
    assert READERS[name](run.parent, run) == {step: pytest.approx(1 / step) for step in (1, 2, 3, 4)}
    assert capfd.readouterr().out == "", "stdout is for results"


def test_answers_are_a_table_of_tensorboard_and_nothing_in_them_is_markup(tmp_path: Path) -> None:
    plugin_util = pytest.importorskip("tensorboard.plugin_util")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    with Metrics(tmp_path, 0, Tracking([TRACKERS.make("tensorboard")])) as curves:
        curves.write({"step": 5, "loss": 1.0}, [{**ANSWER, "id": str(row)} for row in range(30)])
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (event,) = events.Tensors("answers/text_summary")
    html = plugin_util.markdown_to_safe_html(tensor_util.make_ndarray(event.tensor_proto).item())
    assert event.step == 5 and html.count("<tr>") == 1 + 10, "some, evenly from all"
    assert set(re.findall("<(\\w+)", html)) == {"table", "thead", "tbody", "tr", "th", "td", "br"}
    first, *_ = re.findall("<td>(.*?)</td>", html.partition("<tbody>")[2].replace("<td>问？</td>\n<td>好</td>", ""))
    assert unescape(first.replace("<br>", "\n")) == ODD
    assert [line["id"] for line in metrics.read(tmp_path / "generations.jsonl")] == [str(row) for row in range(30)]
    page = (tmp_path / metrics.PAGE).read_text("utf-8")
    assert "How the answers changed" in page and "<script" not in page and "&lt;script&gt;" in page


@pytest.mark.parametrize("name", TRACKERS.names())
def test_documented_and_dumped(name: str) -> None:
    plugin = TRACKERS.make(name)
    assert type(plugin).__doc__ and type(plugin).model_fields.keys() <= docstrings.of_fields(type(plugin)).keys()
    config = TrackConfig.model_validate({"to": [name]})
    assert TrackConfig.model_validate(config.model_dump(mode="json")) == config


def test_a_missing_package_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TRACKERS.load("wandb"), "package", "no_such_package")
    with pytest.raises(MissingExtra, match=r"track.to: wandb needs .*pip install 'tuneloop\["):
        TrackConfig.model_validate({"to": ["tensorboard", "wandb"]}).check()
    TrackConfig().check()


def test_a_training_measures_its_speed_and_draws_its_curves(tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    train(job_of(tiny_model(), counting_rows(8), tmp_path, steps=3, validate=lambda: Measured({"loss": (2.0, True)})))
    for row in metrics.read(tmp_path / "metrics.jsonl"):
        assert row["tokens_per_second"] == pytest.approx(row["tokens"] / row["seconds"], rel=0.02)
        assert 0 < row["supervised_tokens_per_second"] < row["tokens_per_second"] and 0.05 < row["memory_gib"] < 100
    page = (tmp_path / metrics.PAGE).read_text("utf-8")
    assert "Tokens a second" in page and "Gradient norm" in page and 'http-equiv="refresh"' not in page
    assert page.count("<svg") >= 5
