"""Train as a further process of a fold that is trained on several devices; started by `folds.training.ranks`."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path

import torch

from folds.errors import EnsembleError
from folds.training.job import job_from_dict
from folds.training.ranks import process_group
from folds.training.trainer import train_part

_FIRST = 20.0  # seconds that the first process has for an error of all


def _serve() -> None:
    """Train as the process that the line on standard input says, until the first process ends."""
    order = json.loads(sys.stdin.readline())
    rank, folder = int(order["rank"]), Path(order["folder"])

    def listen() -> None:
        sys.stdin.read()
        os._exit(0)  # the first process has ended

    threading.Thread(target=listen, daemon=True).start()
    job = job_from_dict(order["job"])
    job = replace(job, device=job.partners[rank - 1])
    try:
        torch.empty(0, device=job.device)
        (folder / f"{rank}.ready").touch()
        with process_group(job, rank, folder / "store") as group:
            train_part(job, group)
    except EnsembleError as error:
        print(error.message, file=sys.stderr, flush=True)
        time.sleep(_FIRST)  # most are raised by all processes; that of the first one is shown, and ends this one
        os._exit(2)
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    _serve()
