"""Log to Weights & Biases: to its server if an account is logged in, otherwise to a folder that can be sent."""

from __future__ import annotations

import logging
import netrc
import os
import socket
import urllib.request
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from folds.errors import EnsembleError
from folds.experiments.loggers.base import EXPERIMENT, without_credentials
from folds.experiments.loggers.groups import GroupTracker, OpenRun, TrackedRun

logger = logging.getLogger(__name__)

# Nothing about the machine, its packages, the code or the terminal; and a server that does not answer delays a fold by
# seconds: what was not sent stays in the folder.
_SETTINGS = {
    "silent": True,
    "console": "off",
    "save_code": False,
    "disable_git": True,
    "disable_code": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
    "init_timeout": 20,
    "finish_timeout": 60,
}
_PROBE_SECONDS = 5
_SENDS = ("online", "shared", "run")


class WandB(GroupTracker):
    """A run of W&B for each fold, with the epoch as its step, and one with the scores, in a group with its name.

    The project is ``WANDB_PROJECT``, or ``ensemble``. Without ``WANDB_MODE``, and unless an account is logged in and
    the server answers, the runs are written to the folder ``wandb`` beside ``runs`` (or ``WANDB_DIR``), from where
    ``wandb sync`` sends them. The id of each run is in ``wandb.json`` in the folder of its fold, so that a resumed
    fold continues it. A fold that is resumed offline writes all its epochs to a file of its own with the same id:
    W&B's files cannot be continued, and the newest replaces the earlier ones when they are sent.
    """

    name = "wandb"

    def __init__(self, runs: Path = Path("runs")) -> None:
        super().__init__(runs)
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        if not hasattr(wandb, "init"):  # the folder that an earlier training has written
            raise ModuleNotFoundError("No module named 'wandb'", name="wandb")
        self._project = os.environ.get("WANDB_PROJECT") or EXPERIMENT
        self._mode = "offline"

    def _connect(self) -> None:
        import wandb

        found = wandb.setup().settings
        asked = os.environ.get("WANDB_MODE")
        self._mode = asked or found.mode
        if self._mode not in _SENDS:
            reason = ""
        elif not _has_credentials(found.base_url):
            if asked:
                raise EnsembleError(
                    f"WANDB_MODE={asked}, but no account is logged in to W&B",
                    hint="`wandb login`, or WANDB_MODE=offline",
                )
            reason = " (no account is logged in)"
        elif not _answers(found.base_url):
            reason = f" ({urlsplit(found.base_url).hostname} cannot be reached)"
        else:
            return
        self._go_offline(reason)

    def _go_offline(self, reason: str) -> None:
        if self._mode != "disabled":
            self._mode = "offline"
            folder = os.environ.get("WANDB_DIR") or self._runs.parent
            logger.info(f"W&B is offline{reason}: `wandb sync {Path(folder) / 'wandb'}` sends what is written there")

    def _place(self) -> str:
        import wandb

        return without_credentials(wandb.setup().settings.base_url)

    def _start(self, wanted: TrackedRun, known: str | None) -> OpenRun:
        identifier = known or uuid.uuid4().hex[:12]
        if self._mode in _SENDS:
            try:
                run = self._init(wanted, identifier)
                # A step is an epoch, and W&B continues with the step after the last one that it has.
                return OpenRun(run, identifier, max(run.step - 1, 0) if run.resumed else 0)
            except Exception as error:
                self._go_offline(f" ({type(error).__name__})")
                identifier = uuid.uuid4().hex[:12]  # the process of W&B does not give the other one free
        return OpenRun(self._init(wanted, identifier), identifier)

    def _init(self, wanted: TrackedRun, identifier: str) -> Any:
        import wandb

        known = wandb.Settings.model_fields
        return wandb.init(
            project=self._project,
            id=identifier,
            name=wanted.name,
            group=wanted.group,
            job_type=wanted.kind,
            notes=wanted.notes or None,
            config=dict(wanted.settings),
            allow_val_change=True,
            dir=None if os.environ.get("WANDB_DIR") else str(self._runs.parent.absolute()),
            mode=self._mode,  # type: ignore[arg-type]
            resume="allow" if self._mode in _SENDS else None,
            reinit="create_new",  # folds are trained side by side
            settings=wandb.Settings(**{name: value for name, value in _SETTINGS.items() if name in known}),
        )

    def _log(self, opened: OpenRun, values: Mapping[str, float], step: int) -> None:
        opened.run.log(dict(values), step=step)

    def _summarize(self, opened: OpenRun, scores: Mapping[str, float], folds: int) -> None:
        opened.run.summary.update({**scores, "folds": folds})

    def _attach(self, opened: OpenRun, page: Path, name: str) -> None:
        import wandb

        artifact = wandb.Artifact(name, type="report")
        artifact.add_file(str(page), name=page.name)
        opened.run.log_artifact(artifact)

    def _finish(self, opened: OpenRun, complete: bool) -> None:
        opened.run.finish(exit_code=0 if complete else 1)


def _has_credentials(url: str) -> bool:
    """Return whether W&B finds a key for its server without asking for one."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    named = os.environ.get("NETRC")
    files = [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]
    # Keys of before the server was renamed are still valid for it.
    hosts = [urlsplit(url).netloc, *([] if os.environ.get("WANDB_BASE_URL") else ["api.wandb.ai"])]
    for file in files:
        try:
            found = netrc.netrc(file)
        except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
            continue
        if any(found.authenticators(host) for host in hosts):
            return True
    return False


def _answers(url: str) -> bool:
    """Return whether something listens at the address, or a proxy is asked for it."""
    parts = urlsplit(url)
    if urllib.request.getproxies().keys() & {parts.scheme, "all"}:
        return True
    try:
        address = parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
        with socket.create_connection(address, timeout=_PROBE_SECONDS):
            return True
    except (OSError, ValueError):
        return False
