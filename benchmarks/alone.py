"""Measure the model alone: training steps on one batch that is on the device, without a data path or files: the ceiling.

The model does the same work: forward, loss, backward, clipping, the optimizer of the program, and the forward passes of
the validation.
"""

from __future__ import annotations

import time
from collections.abc import Callable


def pace(
    arch: str,
    size: int,
    batch: int,
    classes: int,
    device: str,
    validated: float,
    compiled: bool = False,
    amp: str | None = None,
    channels_last: bool | None = None,
    validation: str | None = None,
) -> Callable[[int], float]:
    """A function that trains n steps and returns the seconds; `validated` images are predicted an image that is trained
    on.

    `amp` and `validation` are ``off`` or ``bf16``; by default bf16 on a GPU. `channels_last` is by default that of
    convolutional models.
    """
    import timm
    import torch

    from folds.models.factory import is_convolutional
    from folds.models.inference import BATCH

    gpu = device != "cpu"
    torch.backends.cudnn.benchmark = gpu
    model = timm.create_model(arch, num_classes=classes).to(device)
    wide = is_convolutional(model) if channels_last is None else channels_last
    layout = torch.channels_last if wide else torch.contiguous_format
    model = model.to(memory_format=layout)
    forward = torch.compile(model, dynamic=False) if compiled else model
    images = torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=layout)
    checked = torch.randn(BATCH, 3, size, size, device=device).contiguous(memory_format=layout)
    labels = torch.randint(classes, (batch,), device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    kind = device.split(":")[0]
    amp = amp or ("bf16" if gpu else "off")
    in_bf16, predicts_in_bf16 = amp == "bf16", (validation or amp) == "bf16"

    def steps(n: int) -> float:
        began = time.perf_counter()
        model.train()
        for _ in range(n):
            with torch.autocast(kind, torch.bfloat16, enabled=in_bf16):
                loss = torch.nn.functional.cross_entropy(forward(images).float(), labels, label_smoothing=0.1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        model.eval()
        with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=predicts_in_bf16):
            for _ in range(round(n * batch * validated / BATCH)):
                model(checked)
        if gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    steps(3)
    return steps
