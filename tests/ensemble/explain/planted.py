"""A world in which only one quadrant of an image tells its class, and a tiny network that has learned it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

SIDE = 32


def draw(images: int, seed: int) -> tuple[Tensor, NDArray[np.int64], NDArray[np.int64]]:
    """Return images (n, 3, 32, 32), labels (n,), and the quadrant (n,) 0 to 3 that has the disk of the class.

    The class is the color of a disk; the other quadrants have gray disks, so a disk alone tells nothing.
    """
    random = np.random.default_rng(seed)
    pixels = random.normal(0, 0.3, (images, 3, SIDE, SIDE)).astype(np.float32)
    labels, quadrants = random.integers(0, 3, images), random.integers(0, 4, images)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for image, (label, quadrant) in enumerate(zip(labels, quadrants)):
        for place in range(4):
            row, column = random.integers(5, 11, 2) + np.array(divmod(place, 2)) * (SIDE // 2)
            disk = (rows - row) ** 2 + (columns - column) ** 2 < 16
            if place == quadrant:
                pixels[image][:, disk] = 0
                pixels[image, label][disk] = 2
            else:
                pixels[image][:, disk] = random.choice([0.0, 0.7, 1.4])
    return torch.from_numpy(pixels), labels.astype(np.int64), quadrants.astype(np.int64)


class TinyCNN(nn.Module):
    """Three convolutions, the mean over the image, and a linear head: (n, 3, 32, 32) → (n, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(
            *(nn.Conv2d(3, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU(inplace=True)),
            *(nn.Conv2d(12, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU(inplace=True)),
            *(nn.Conv2d(24, 24, 3, 1, 1), nn.BatchNorm2d(24), nn.ReLU(inplace=True)),
        )
        self.head = nn.Linear(24, 3)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        result: Tensor = self.head(self.stages(images).mean((2, 3)))
        return result


def trained() -> TinyCNN:
    """Return a network that knows the world."""
    torch.manual_seed(0)
    network, (images, labels, _) = TinyCNN(), draw(384, 0)
    answers, optimizer = torch.from_numpy(labels), torch.optim.AdamW(network.parameters(), 0.01)
    for _ in range(12):
        for some in torch.randperm(len(images)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[some]), answers[some]).backward()
            optimizer.step()
    return network.eval()
