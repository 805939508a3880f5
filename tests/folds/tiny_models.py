"""ONNX files of a hundred bytes, with the inputs and outputs of a U²-Net: bright is foreground.

A 1×1 convolution (.3 red, .6 green, .1 blue) and a sigmoid, written with onnx.helper.
"""

from __future__ import annotations

import base64
from pathlib import Path

_FILES = {
    # (1, 3, 320, 320) → (1, 1, 320, 320)
    "u2net": "CAg6gAEKDwoBeAoBdxIBYyIEQ29udgoPCgFjEgF5IgdTaWdtb2lkEgFnKhsIAQgDCAEIARABQgF3SgyamZk+mpkZP83MzD1aHQoBeBIYChYIARISCgIIAQoCCAMK"
    "AwjAAgoDCMACYh0KAXkSGAoWCAESEgoCCAEKAggBCgMIwAIKAwjAAkIECgAQDQ==",
    # (1, 3, 1024, 1024) → (1, 1, 1024, 1024), as ISNet and BiRefNet
    "isnet": "CAg6gAEKDwoBeAoBdxIBYyIEQ29udgoPCgFjEgF5IgdTaWdtb2lkEgFnKhsIAQgDCAEIARABQgF3SgyamZk+mpkZP83MzD1aHQoBeBIYChYIARISCgIIAQoCCAMK"
    "AwiACAoDCIAIYh0KAXkSGAoWCAESEgoCCAEKAggBCgMIgAgKAwiACEIECgAQDQ==",
    # (1, 3, 320, 320) → (1, 2, 320, 320)
    "classes": "CAg6jAEKDwoBeAoBdxIBYyIEQ29udgoPCgFjEgF5IgdTaWdtb2lkEgFnKicIAggDCAEIARABQgF3ShiamZk+mpkZP83MzD2amZk+mpkZP83MzD1aHQoBeBIYChYI"
    "ARISCgIIAQoCCAMKAwjAAgoDCMACYh0KAXkSGAoWCAESEgoCCAEKAggCCgMIwAIKAwjAAkIECgAQDQ==",
}


def write_model(path: Path, kind: str = "u2net") -> Path:
    path.write_bytes(base64.b64decode(_FILES[kind]))
    return path
