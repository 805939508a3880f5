"""The versions in a checkpoint are those of the process that trained it."""

from __future__ import annotations

import pytest
import torch

from folds.training import versions
from folds.training.versions import environment, versions_of_training


def test_versions_of_the_planning_process_are_kept_if_equal() -> None:
    recorded = environment()
    assert list(versions_of_training(recorded).items()) == list(recorded.items())
    assert versions_of_training({}) == {}


def test_a_checkpoint_names_the_gpu_and_versions_of_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = environment() | {"cuda device": "NVIDIA T4", "torch": "2.11.0"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "NVIDIA H100")
    found = versions_of_training(recorded)
    assert (found["cuda device"], found["torch"]) == ("NVIDIA H100", str(torch.__version__))


def test_scikit_learn_is_named_also_without_its_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    import sklearn

    def missing(name: str) -> str:
        raise versions.PackageNotFoundError(name)

    assert environment()["scikit-learn"] == sklearn.__version__
    monkeypatch.setattr(versions, "version", missing)
    assert environment()["scikit-learn"] == sklearn.__version__
