"""The adapter to mediapipe, against a stand-in with the interface of its face detector task (mediapipe 1.2)."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from folds.errors import EnsembleError
from folds.preparation.boxes import Box
from folds.preparation.detectors import DetectorSettings, describe_detector, open_detector
from folds.preparation.mediapipe_detector import MediapipeDetector


class StandIn:
    """mediapipe as far as it is used: options with the model's bytes, an image of RGB, detections with a box and a
    score.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, float]] = []
        self.images: list[np.ndarray] = []
        self.closed = 0
        self.faces = [(10, 20, 30, 40, 0.625), (-5, 0, 50, 60, 0.875), (1, 1, 4, 4, 0.99)]

    def module(self) -> types.ModuleType:
        module = types.ModuleType("mediapipe")
        vision = types.SimpleNamespace(
            FaceDetectorOptions=lambda base_options, min_detection_confidence: (base_options, min_detection_confidence),
            FaceDetector=types.SimpleNamespace(create_from_options=self.create),
        )
        module.tasks = types.SimpleNamespace(vision=vision, BaseOptions=lambda model_asset_buffer: model_asset_buffer)
        module.ImageFormat = types.SimpleNamespace(SRGB="SRGB")
        module.Image = lambda image_format, data: (image_format, data)
        return module

    def create(self, options: tuple[bytes, float]) -> StandIn:
        os.write(2, b"INFO: from C++\n")
        if options[0] == b"text":
            raise RuntimeError("The model is not\na valid Flatbuffer buffer")
        self.asked.append(options)
        return self

    def detect(self, image: tuple[str, np.ndarray]) -> object:
        kind, pixels = image
        assert kind == "SRGB"
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous
        self.images.append(pixels)
        box = lambda x, y, w, h: types.SimpleNamespace(origin_x=x, origin_y=y, width=w, height=h)  # noqa: E731
        found = [
            types.SimpleNamespace(bounding_box=box(*face[:4]), categories=[types.SimpleNamespace(score=face[4])])
            for face in self.faces
        ]
        return types.SimpleNamespace(detections=found)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    standin = StandIn()
    monkeypatch.setitem(sys.modules, "mediapipe", standin.module())
    return standin


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "face.tflite"
    path.write_bytes(b"model")
    return path


def test_boxes_are_sorted_by_confidence_without_small_ones(standin: StandIn, model: Path) -> None:
    detector = MediapipeDetector(model, min_confidence=0.3, min_face=0.25)
    image = np.zeros((90, 100, 3), np.uint8)[:, ::-1]
    assert detector.find(image) == [Box(-5, 0, 50, 60, 0.875), Box(10, 20, 30, 40, 0.625)]
    assert standin.asked == [(b"model", 0.3)]
    assert standin.images[-1].shape == (90, 100, 3)
    detector.close()
    assert standin.closed == 1


def test_what_its_c_code_prints_is_kept_from_the_terminal(
    standin: StandIn, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    MediapipeDetector(model)
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_a_file_it_cannot_use_is_one_line_that_names_it(standin: StandIn, model: Path) -> None:
    model.write_bytes(b"text")
    with pytest.raises(
        EnsembleError, match=r"mediapipe cannot use .*face\.tflite: The model is not a valid Flatbuffer buffer"
    ):
        open_detector(DetectorSettings("mediapipe", model))


def test_without_mediapipe_the_other_detector_is_offered(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(EnsembleError, match="mediapipe cannot be imported") as caught:
        describe_detector(DetectorSettings("mediapipe", model))
    assert "`detector=opencv`" in (caught.value.hint or "")


def test_a_model_that_is_not_there_is_named(standin: StandIn, tmp_path: Path) -> None:
    with pytest.raises(EnsembleError, match=r"there is no model file .*gone\.tflite"):
        open_detector(DetectorSettings("mediapipe", tmp_path / "gone.tflite"))
