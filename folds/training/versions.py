"""Record the versions and the kind of machine that affect whether results are bit-identical."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version


def environment() -> dict[str, str]:
    """Return versions by name; ``cpu`` is the instruction set that torch uses."""
    import numpy
    import PIL
    import timm
    import torch
    import torchvision

    from folds import __version__
    from folds.models.accelerators import device_name, kind_of, other_devices

    versions = {
        "ensemble": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
    versions |= {"cpu": torch.backends.cpu.get_cpu_capability()}
    versions |= {"torch": str(torch.__version__), "torchvision": str(torchvision.__version__), "timm": timm.__version__}
    versions |= {"numpy": numpy.__version__, "pillow": PIL.__version__, "scikit-learn": _scikit_learn()}
    if torch.cuda.is_available():
        versions["cuda device"] = torch.cuda.get_device_name(0)
    elif others := other_devices():
        versions["accelerator"] = f"{kind_of(others[0])} {device_name(others[0])}"
    return versions


def _scikit_learn() -> str:
    """Return the version of scikit-learn without importing it, which takes a second."""
    try:
        return version("scikit-learn")
    except PackageNotFoundError:  # its files without its metadata
        import sklearn

        return str(sklearn.__version__)


def versions_of_training(recorded: Mapping[str, str]) -> dict[str, str]:
    """Return the versions for the checkpoint of a job: those of the process that trains.

    On a cluster it may be another machine than the one that planned the job, and each worker has a GPU of its own.

    Parameters
    ----------
    recorded : versions where the job was planned; returned themselves if they are the same, or {} if none are recorded.
    """
    own = environment() if recorded else {}
    return dict(recorded) if own == recorded else own
