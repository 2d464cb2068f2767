"""MLflow; by default an SQLite file beside the run folders: `mlflow ui --backend-store-uri sqlite:///runs/mlflow.db`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tuneloop.track.trackers import Story, Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient

LONGEST = 500  # characters of a parameter's value
BATCH = 500  # MLflow takes 1,000 metrics and 100 parameters a call


class MLflow(Tracker):
    """One MLflow run for a run folder, found again by its tag when training goes on."""

    package: ClassVar[str] = "mlflow"

    uri: str | None = None
    """Tracking server (http://…) or database; by default sqlite:///RUNS/mlflow.db."""

    def open(self, story: Story) -> Recorder:
        import logging

        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        client = MlflowClient(tracking_uri=self.uri or f"sqlite:///{story.run.resolve().parent / 'mlflow.db'}")
        experiment = client.get_experiment_by_name(story.project)
        number = experiment.experiment_id if experiment else client.create_experiment(story.project)
        known = client.search_runs([number], filter_string=f"tags.`tuneloop.run` = '{story.run.name}'")
        if known:
            return Recorder(client, known[0].info.run_id)
        run = client.create_run(number, run_name=story.run.name, tags={"tuneloop.run": story.run.name})
        for name, value in _flat(story.settings).items():
            client.log_param(run.info.run_id, name, value[:LONGEST])
        return Recorder(client, run.info.run_id)


class Recorder:
    """A Sink over an MLflow client; collects metrics, as each call costs milliseconds."""

    def __init__(self, client: MlflowClient, run: str) -> None:
        self.client, self.run = client, run
        self.waiting: list[Any] = []

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """As Sink.log."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.waiting += [Metric(name, value, now, step) for name, value in values.items()]
        if len(self.waiting) >= BATCH:
            self._send()

    def answers(self, step: int, table: Sequence[tuple[str, str, str]]) -> None:
        """As Sink.answers: nothing, as MLflow keeps tables as files without steps; generations.jsonl has them."""

    def close(self, finished: bool) -> None:
        """As Sink.close."""
        self._send()
        self.client.set_terminated(self.run, status="FINISHED" if finished else "KILLED")

    def _send(self) -> None:
        self.client.log_batch(self.run, metrics=self.waiting)
        self.waiting = []


def _flat(settings: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """`tune.learning_rate` → its value as text; lists stay whole."""
    found: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{path}{key}.")
        else:
            found[f"{path}{key}"] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found
