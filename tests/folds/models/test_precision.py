from __future__ import annotations

import pytest

from folds.errors import UsageError
from folds.models.precision import amp_warning, resolve_devices


def test_half_precision_on_a_cpu_is_warned_of_with_the_factor() -> None:
    assert "about 25 times slower" in amp_warning("fp16", "cpu")
    assert amp_warning("fp16", "cuda:0") == amp_warning("bf16", "cpu") == amp_warning("auto", "cpu") == ""


@pytest.mark.parametrize("device", ["mps", "mps:0", "xla"])
def test_devices_that_are_not_supported_are_named(device: str) -> None:
    with pytest.raises(UsageError, match=f"devices={device} is not supported"):
        resolve_devices(device)
