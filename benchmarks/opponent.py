"""Train as a competent user would: timm's model, a dataset of image files, DataLoader with workers, torchvision, AMP.

It is the opponent of `benchmarks/kfold.py` and `benchmarks/on_gpu.py`, and nothing in it is slowed down: workers persist, memory is pinned,
convolutions are channels_last, bf16 is used on a GPU (and on a CPU where asked for, which few users do), optimizer and schedule are those of the program, the augmentation
is as strong. Pillow decodes JPEGs at a fraction of their size (`draft`), which few users do, so that the comparison is
not about that.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


@dataclass(frozen=True)
class Epoch:
    """Images trained on and validated on, and the seconds it took."""

    trained: int
    validated: int
    seconds: float


class Files(Dataset[tuple[torch.Tensor, int]]):
    """Image files, decoded each time they are needed."""

    def __init__(self, paths: Sequence[Path], labels: Sequence[int], transform: Any, size: int, draft: bool) -> None:
        self.paths, self.labels, self.transform, self.size, self.draft = (
            list(paths),
            list(labels),
            transform,
            size,
            draft,
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[i]) as image:
            if self.draft:
                image.draft("RGB", (2 * self.size, 2 * self.size))
            return self.transform(image.convert("RGB")), self.labels[i]


def train_fold(
    paths: Sequence[Path],
    labels: Sequence[int],
    training: Sequence[int],
    validation: Sequence[int],
    *,
    arch: str,
    size: int,
    classes: int,
    epochs: int,
    batch: int,
    workers: int,
    threads: int,
    device: str,
    draft: bool = False,
    bf16: bool = False,
    compiled: bool = False,
    report: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """Train one fold the usual way; one record an epoch, which is also reported when the epoch is over.

    On a GPU bf16 is always used, on a CPU if it is asked for.
    """
    torch.set_num_threads(threads)
    gpu = device != "cpu"
    torch.backends.cudnn.benchmark = gpu
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    last = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    strong = transforms.Compose(
        [
            transforms.Resize((size, size)),
            transforms.RandomHorizontalFlip(),
            transforms.RandomAffine(8, (0.06, 0.06), (0.88, 1.12), interpolation=transforms.InterpolationMode.BILINEAR),
            transforms.ColorJitter(0.2, 0.2, 0.2),
            *last,
        ]
    )
    plain = transforms.Compose([transforms.Resize((size, size)), *last])

    def loader(rows: Sequence[int], transform: Any, shuffle: bool) -> DataLoader[tuple[torch.Tensor, int]]:
        files = Files([paths[i] for i in rows], [labels[i] for i in rows], transform, size, draft)
        many: dict[str, Any] = {"persistent_workers": True, "prefetch_factor": 4} if workers else {}
        return DataLoader(files, batch, shuffle=shuffle, num_workers=workers, pin_memory=gpu, **many)

    model = timm.create_model(arch, num_classes=classes).to(device)
    if not arch.startswith(("swin", "vit")):
        model = model.to(memory_format=torch.channels_last)
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    train, check = loader(training, strong, True), loader(validation, plain, False)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(train))
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    records = []
    for _ in range(epochs):
        began = time.perf_counter()
        model.train()
        for images, targets in train:
            images = images.to(device, non_blocking=True)
            targets = targets.to(device, non_blocking=True)
            with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=gpu or bf16):
                loss = criterion(forward(images), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        model.eval()
        right = torch.zeros((), device=device)
        with torch.inference_mode(), torch.autocast(device.split(":")[0], torch.bfloat16, enabled=gpu or bf16):
            for images, targets in check:
                right += (
                    model(images.to(device, non_blocking=True)).argmax(1) == targets.to(device, non_blocking=True)
                ).sum()
        float(right)
        records.append(Epoch(len(training), len(validation), time.perf_counter() - began))
        report(records[-1])
    return records


def main() -> None:
    """Train folds one after the other; the task is JSON on standard input, the seconds of each epoch go to the output."""
    task = json.load(sys.stdin)
    folds, paths, labels = task.pop("folds"), [Path(path) for path in task.pop("paths")], task.pop("labels")
    seconds = [[record.seconds for record in train_fold(paths, labels, *rows, device="cpu", **task)] for rows in folds]
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
