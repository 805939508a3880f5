"""Log to MLflow: one of its runs for each run, on a server or in a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from folds.errors import EnsembleError
from folds.experiments.loggers.base import EXPERIMENT, METRIC_NAMES, Tracker, scores_of, texts_of, without_credentials
from folds.training.job import Job
from folds.utils.files import read_json, write_json
from folds.utils.schema import TEXT, validate_fields

RECORD = "mlflow.json"
_FIELDS = {"uri": TEXT, "run_id": TEXT}

# No telemetry; a folder as the store also in versions that prefer a database; and an unreachable server delays an epoch
# by seconds, not by minutes.
_MLFLOW = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class MLflow(Tracker):
    """A run of MLflow for each run: metrics ``fold<i>/…``, settings as parameters, scores, hypothesis and baseline.

    The store is ``MLFLOW_TRACKING_URI``, or else the folder ``mlruns`` beside ``runs``. The id of MLflow's run is in
    ``runs/<run>/mlflow.json``, so that a resumed run continues it.
    """

    def __init__(self, runs: Path = Path("runs")) -> None:
        super().__init__()
        for name, value in _MLFLOW.items():
            os.environ.setdefault(name, value)
        import mlflow  # noqa: F401 - raises ImportError if it is not installed

        self._runs = runs
        self._uri = os.environ.get("MLFLOW_TRACKING_URI") or (runs.parent / "mlruns").absolute().as_uri()
        self._client: Any = None
        self._ids: dict[str, str] = {}

    def _connect(self) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=self._uri)
        self._client.get_experiment_by_name(EXPERIMENT)

    def _id(self, run: str) -> str:
        """Return the id of MLflow's run for a run: the recorded one if it still exists, otherwise a new one."""
        if run not in self._ids:
            with suppress(Exception):  # removed there
                known = self.known(run)
                if known is not None:
                    self._ids[run] = self._client.get_run(known).info.run_id
            if run not in self._ids:
                found = self._client.get_experiment_by_name(EXPERIMENT)
                experiment = self._client.create_experiment(EXPERIMENT) if found is None else found.experiment_id
                self._ids[run] = self._client.create_run(
                    experiment, run_name=run, tags={"ensemble.run": run}
                ).info.run_id
                place = without_credentials(self._uri)  # folders of runs are shared
                write_json(self._runs / run / RECORD, {"uri": place, "run_id": self._ids[run]})
        return self._ids[run]

    def known(self, run: str) -> str | None:
        """Return the recorded id of MLflow's run; None if there is none, or one of another server or folder."""
        with suppress(EnsembleError, OSError):
            recorded = read_json(self._runs / run / RECORD)
            if not validate_fields(recorded, _FIELDS):
                same = without_credentials(recorded["uri"]) == without_credentials(self._uri)
                return str(recorded["run_id"]) if same else None
        return None

    def report(self, page: Path, run: str) -> None:
        """Store a page with the artifacts of a run; raise whatever MLflow raises."""
        self._client.log_artifact(self._id(run), str(page), "report")

    def _begin(self, job: Job) -> int:
        written = self._client.get_metric_history(self._id(job.run), f"{job.part}/{METRIC_NAMES['loss']}")
        return max((metric.step for metric in written), default=0)

    def _write(self, job: Job, epoch: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self._id(job.run), f"{job.part}/{name}", value, step=epoch)

    def _entry(self, entry: Mapping[str, Any]) -> None:
        run_id = self._id(entry["run"])
        logged = self._client.get_run(run_id).data.params
        for name, value in entry["settings"].items():
            if name not in logged:  # MLflow does not allow a parameter to change
                self._client.log_param(run_id, name, str(value)[:500])
        for name, value in scores_of(entry).items():
            self._client.log_metric(run_id, name, value, step=len(entry["folds"]))
        for name, text in texts_of(entry).items():
            self._client.set_tag(run_id, "mlflow.note.content" if name == "hypothesis" else f"ensemble.{name}", text)
        if len(entry["folds"]) == entry["k"]:
            self._client.set_terminated(run_id)
