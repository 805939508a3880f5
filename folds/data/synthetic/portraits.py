"""Draw images of a face in one of three mask states, each with its own pose, light and mask; numpy and Pillow only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from folds.data.synthetic.faces import Color, Face, hsv, mix, pick, shade
from folds.data.synthetic.worn import Worn, draw_hat, draw_scarf, draw_spots

MASK_STATES = ("wear", "incorrect", "normal")

Points = NDArray[np.float64]

_CANVAS = (96.0, 128.0)  # width and height in canvas units, the unit of all coordinates below
_OVERSAMPLING = 2  # factor of drawing size over image size; averaging smooths Pillow's hard edges
_CENTER = np.array([48.0, 58.0])
_MASKS = (
    (242, 246, 250),
    (156, 204, 232),
    (40, 42, 48),
    (236, 178, 192),
    (150, 206, 176),
    (96, 110, 150),
    (122, 92, 140),
)
_CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 32, False)), np.sin(np.linspace(0, 2 * np.pi, 32, False))], axis=1)


class _Pen:
    """A drawing pen in canvas units; all shapes are transformed by a pose (shift, scale, tilt about the face)."""

    def __init__(self, size: tuple[int, int], color: Color) -> None:
        self.picture = Image.new("RGB", size, _ints(color))
        self._draw = ImageDraw.Draw(self.picture)
        # The canvas covers a picture of any shape; it is cropped, not stretched.
        self._unit = max(size[0] / _CANVAS[0], size[1] / _CANVAS[1])
        self._middle = np.array(size) / 2 - np.array(_CANVAS) / 2 * self._unit
        self.pose(np.zeros(2), 1.0, 0.0)

    def pose(self, shift: Points, scale: float, tilt: float) -> None:
        """Set the pose: shift in canvas units, scale factor, and tilt in radians about the center of the face."""
        cos, sin = scale * np.cos(tilt), scale * np.sin(tilt)
        self._turn = np.array([[cos, sin], [-sin, cos]]) * self._unit
        self._shift = (_CENTER + shift) * self._unit + self._middle - _CENTER @ self._turn
        self._width = self._unit * scale

    def polygon(self, points: Points | list, color: Color) -> None:
        """Fill the polygon through `points`, (n, 2)."""
        placed = np.asarray(points, float) @ self._turn + self._shift
        self._draw.polygon(placed.ravel().tolist(), fill=_ints(color))

    def ellipse(self, x: float, y: float, half_width: float, half_height: float, color: Color) -> None:
        """Fill an ellipse around (x, y)."""
        self.polygon(_CIRCLE * (half_width, half_height) + (x, y), color)

    def line(self, points: Points | list, width: float, color: Color) -> None:
        """Draw a line through `points`, (n, 2), `width` units thick."""
        placed = np.asarray(points, float) @ self._turn + self._shift
        self._draw.line(
            placed.ravel().tolist(), fill=_ints(color), width=max(1, round(width * self._width)), joint="curve"
        )


def _ints(color: Color) -> tuple[int, int, int]:
    return (int(color[0]), int(color[1]), int(color[2]))


def draw_portrait(
    face: Face,
    state: str,
    rng: np.random.Generator,
    size: tuple[int, int] = (96, 128),
    worn: Worn | None = None,
) -> Image.Image:
    """Return an RGB image (of `size`) of a person.

    Parameters
    ----------
    state : one of `MASK_STATES`.
    rng : random stream of the image, for pose, mask and light; the same stream with another `state` changes only the
        position of the mask.
    size : width and height in pixels.
    worn : what else the image shows; None for nothing. It uses no random numbers.
    """
    pose, make, light = rng.spawn(3)
    pen = _Pen((size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING), face.backdrop)
    pen.pose(pose.normal(0, 1.5, 2), 1.0, 0.0)
    _backdrop(pen, face)
    shift, scale = np.clip(pose.normal((0, 2), 2.2), -5, 6), float(pose.uniform(1.1, 1.26))
    tilt = float(np.clip(pose.normal(0, 0.05), -0.12, 0.12))
    pen.pose(shift, scale, tilt * 0.3)  # shoulders tilt less than the head
    _body(pen, face)
    if worn is not None and worn.scarf is not None:
        draw_scarf(pen, face, worn.scarf, _CENTER)
    pen.pose(shift, scale, tilt)
    _head(pen, face)
    if worn is not None:
        draw_spots(pen, face, worn, _CENTER)
    _features(pen, face, pose)
    _front_hair(pen, face)
    if worn is not None and worn.hat is not None:
        draw_hat(pen, face, worn.hat, _CENTER)
    if state != "normal":
        _mask(pen, face, state == "wear", make)
    return _lit(pen.picture.reduce(_OVERSAMPLING), light, (1.0, 1.0, 1.0) if worn is None else worn.tint)


def _backdrop(pen: _Pen, face: Face) -> None:
    second = face.backdrop_second
    if face.pattern == 1:
        for x in range(-12, 120, 24):
            pen.polygon([(x, -20), (x + 11, -20), (x + 11, 150), (x, 150)], second)
    elif face.pattern == 2:
        for row, y in enumerate(range(-6, 140, 22)):
            for x in range(-12 + 12 * (row % 2), 120, 24):
                pen.ellipse(x, y, 7, 7, second)
    elif face.pattern == 3:
        pen.polygon([(-20, 62), (116, 62), (116, 150), (-20, 150)], second)
    elif face.pattern == 4:
        for x in range(-130, 130, 30):
            pen.polygon([(x, -20), (x + 14, -20), (x + 154, 150), (x + 140, 150)], second)


def _hair_bottom(face: Face) -> float:
    return 46.0 + 62.0 * face.hair_length


def _body(pen: _Pen, face: Face) -> None:
    x, half, bottom = _CENTER[0], face.half_width + face.hair_volume, _hair_bottom(face)
    if face.hair_length > 0.3:
        side = half + 4.0 * face.hair_length
        back = [
            (x - half, 48),
            (x + half, 48),
            (x + side, bottom - 8),
            (x + side - 5, bottom),
            (x - side + 5, bottom),
            (x - side, bottom - 8),
        ]
        pen.polygon(back, shade(face.hair, 0.8))
    chin, wide = _CENTER[1] + face.half_height, face.shoulders
    pen.polygon(
        [(x - face.neck, 66), (x + face.neck, 66), (x + face.neck + 1, 108), (x - face.neck - 1, 108)],
        shade(face.skin, 0.82),
    )
    right = np.array([(face.neck + 1, chin + 9), (wide * 0.75, chin + 15), (wide, chin + 24), (wide + 6, 160)])
    both = np.vstack([right, right[::-1] * (-1, 1)])
    both[:, 0] += x
    pen.polygon(both, face.clothes)
    if face.collar == 0:
        pen.ellipse(x, chin + 9, face.neck + 2, 6, shade(face.skin, 0.86))
    elif face.collar == 1:
        pen.polygon(
            [(x - face.neck - 1, chin + 8), (x + face.neck + 1, chin + 8), (x, chin + 26)], shade(face.skin, 0.86)
        )
    elif face.collar == 2:
        pen.polygon(
            [(x - face.neck - 2, chin + 6), (x, chin + 16), (x - 8, chin + 25), (x - face.neck - 7, chin + 13)],
            face.clothes_second,
        )
        pen.polygon(
            [(x + face.neck + 2, chin + 6), (x, chin + 16), (x + 8, chin + 25), (x + face.neck + 7, chin + 13)],
            face.clothes_second,
        )
    else:
        for y in (chin + 17, chin + 29, chin + 41):
            pen.polygon(
                [(x - wide * 0.95, y + 3), (x + wide * 0.95, y + 3), (x + wide, y + 8), (x - wide, y + 8)],
                face.clothes_second,
            )


def _outline(face: Face, grow: float = 0.0) -> Points:
    """Return (32, 2) the outline of the head, enlarged by `grow` units: a superellipse, squared below by the jaw."""
    power = np.where(_CIRCLE[:, 1] > 0, 2.0 / face.jaw, 1.0)
    shape = np.sign(_CIRCLE) * np.abs(_CIRCLE) ** power[:, None]
    shape[:, 0] *= 1.0 - 0.14 * np.clip(shape[:, 1], 0, 1)
    return shape * (face.half_width + grow, face.half_height + grow) + _CENTER


def _head(pen: _Pen, face: Face) -> None:
    x, y = _CENTER
    pen.polygon(_outline(face, face.hair_volume * 0.8)[16:], shade(face.hair, 0.9))
    for side in (-1, 1):
        pen.ellipse(x + side * face.half_width, y + 2, 3.2, 5.2, shade(face.skin, 0.88))
    pen.polygon(_outline(face), face.skin)
    if face.beard > 0.15:
        outline = _outline(face)
        jaw = outline[(outline[:, 1] > y + 9)]
        pen.polygon(jaw, mix(face.skin, face.hair, 0.25 + 0.5 * face.beard))


def _features(pen: _Pen, face: Face, rng: np.random.Generator) -> None:
    x, y = _CENTER
    dark, line = shade(face.skin, 0.8), shade(face.skin, 0.75 - 0.25 * face.lines)
    gaze, smile, lids = rng.normal(0, 0.5), float(rng.uniform(-0.3, 1.6)), float(rng.uniform(0.75, 1.0))
    if face.lines > 0.12:
        for step in range(1 + round(2.4 * face.lines)):
            pen.line(
                [(x - 10, y - 11.5 - 3.2 * step), (x, y - 12.5 - 3.2 * step), (x + 10, y - 11.5 - 3.2 * step)],
                1.2,
                line,
            )
    for side in (-1, 1):
        eye = x + side * face.eye_spacing
        if face.lines > 0.12:
            pen.line([(eye - 3, y + 5), (eye, y + 6.2), (eye + 3, y + 5)], 1.0 + 0.8 * face.lines, line)
            pen.line(
                [(x + side * 6, y + 10), (x + side * 9, y + 15), (x + side * 9.5, y + 19)], 1.0 + 0.9 * face.lines, line
            )
            pen.line([(eye + side * 5, y - 1), (eye + side * 8, y - 2.5)], 0.8, line)
        pen.ellipse(eye, y, face.eye_size * 1.25, face.eye_size * 0.8 * lids, (248, 248, 246))
        pen.ellipse(eye + gaze, y, face.eye_size * 0.72, face.eye_size * 0.72 * lids, face.iris)
        pen.ellipse(eye + gaze, y, face.eye_size * 0.34, face.eye_size * 0.34, (16, 14, 16))
        upper = face.eye_size * 0.8 * lids
        pen.line(
            [
                (eye - face.eye_size * 1.3, y - 0.2),
                (eye - 1.5, y - upper),
                (eye + 1.5, y - upper),
                (eye + face.eye_size * 1.3, y - 0.2),
            ],
            float(np.clip(0.8 + 0.45 * face.gender_cue, 0.5, 2.0)),
            (40, 30, 30),
        )
        brow = shade(face.hair, 0.75)
        pen.line([(eye - side * 4, y - 6.2), (eye + side * 1, y - 7.6), (eye + side * 5, y - 6)], face.brow, brow)
        pen.ellipse(x + side * 12, y + 10, 4, 3, mix(face.skin, (226, 110, 100), 0.14))
    pen.polygon([(x + 0.4, y - 1), (x + face.nose, y + 8.6), (x - face.nose * 0.8, y + 9.6)], shade(face.skin, 0.88))
    pen.line(
        [(x + 0.6, y), (x + face.nose, y + 8.2), (x + face.nose * 0.6, y + 9.8), (x - face.nose * 0.8, y + 9.8)],
        1.2,
        dark,
    )
    lips = mix(shade(face.skin, 0.72), (196, 52, 66), face.lips)
    low, wide = y + 16.0, face.mouth
    pen.polygon(
        [
            (x - wide, low),
            (x - 2, low - 1.6),
            (x, low - 1),
            (x + 2, low - 1.6),
            (x + wide, low),
            (x + 3.5, low + 2.6 + smile),
            (x - 3.5, low + 2.6 + smile),
        ],
        lips,
    )
    pen.line([(x - wide, low), (x, low + 0.8 * smile), (x + wide, low)], 0.7, shade(lips, 0.6))
    if face.glasses:
        _glasses(pen, face)


def _glasses(pen: _Pen, face: Face) -> None:
    x, y = _CENTER
    corners = _CIRCLE if face.glasses == 1 else np.sign(_CIRCLE) * np.abs(_CIRCLE) ** 0.45
    for side in (-1, 1):
        rim = corners * (6.2, 5.0) + (x + side * face.eye_spacing, y + 0.5)
        pen.line(np.vstack([rim, rim[:2]]), 1.1, (36, 34, 40))
        pen.line([(x + side * (face.eye_spacing + 6), y - 0.5), (x + side * face.half_width, y - 1)], 1.1, (36, 34, 40))
    pen.line([(x - face.eye_spacing + 6, y), (x + face.eye_spacing - 6, y)], 1.1, (36, 34, 40))


def _front_hair(pen: _Pen, face: Face) -> None:
    """Draw the hair over the forehead down to the hairline and, if it is long, along the cheeks."""
    x, y = _CENTER
    # From the temple on the right over the top to the temple on the left, then back along the hairline.
    angles = np.linspace(0.06, np.pi - 0.06, 22)
    outer = np.stack(
        [
            np.cos(angles) * (face.half_width + 1.4 + 0.4 * face.hair_volume),
            -np.sin(angles) * (face.half_height + face.hair_volume),
        ],
        axis=1,
    )
    top = -(0.45 + 0.4 * face.hairline) * face.half_height
    side = face.half_width * (0.93 - 0.03 * face.hairline)
    part = x + face.parting * 9
    inner = [
        (x - side, y - 4),
        (x - side * 0.86, y + top * 0.75),
        (part - 3, y + top - 1),
        (part, y + top - 3),
        (part + 3, y + top - 1),
    ]
    inner += [(x + side * 0.86, y + top * 0.75), (x + side, y - 4)]
    pen.polygon(np.vstack([outer + _CENTER, np.array(inner)]), face.hair)
    for share in (-0.9, -0.4, 0.4, 0.9):  # a few strands from the parting
        strand = [(part + 5 * share, y - face.half_height + 1), (x + share * 14, y + top - 2 + 5 * abs(share))]
        pen.line(strand, 0.7, shade(face.hair, 1.1))
    if face.hair_length > 0.3:
        bottom = _hair_bottom(face)
        for sign in (-1, 1):
            edge, wide = x + sign * (face.half_width - 1.5), 2.2 + 0.8 * face.hair_volume
            lock = [
                (edge, y - 12),
                (edge + sign * wide, y - 6),
                (edge + sign * (wide + 1), bottom - 5),
                (edge + sign * wide * 0.6, bottom),
                (edge, bottom - 6),
            ]
            pen.polygon(lock, shade(face.hair, 0.94))


def _mask(pen: _Pen, face: Face, worn: bool, rng: np.random.Generator) -> None:
    """Draw a random face mask: over nose and mouth, or pulled below the nose or below the mouth."""
    x, y = _CENTER
    chin = face.half_height + 2
    cloth = face.skin
    while np.abs(np.subtract(cloth, face.skin)).max() < 80:  # a mask in the color of the skin would be invisible
        cloth = (
            pick(_MASKS, rng, 8)
            if rng.random() < 0.8
            else hsv(rng.random(), rng.uniform(0.1, 0.6), rng.uniform(0.5, 0.95))
        )
    if worn:
        top, bottom = float(rng.uniform(0.5, 2.5)), chin
    elif rng.random() < 0.7:
        top, bottom = float(rng.uniform(13.0, 14.5)), chin + 4
    else:
        top, bottom = float(rng.uniform(19.5, 21.0)), chin + 13
    outline = _outline(face, 0.8)
    outline = outline[outline[:, 1] > y + top + 1.5]  # from the right cheek around the chin to the left cheek
    lowered = np.clip((outline[:, 1] - y - top) / (chin - top), 0, 1) * (bottom - chin)
    cheeks = np.stack([outline[:, 0], outline[:, 1] + lowered], axis=1)
    right, left = cheeks[cheeks[:, 0].argmax()], cheeks[cheeks[:, 0].argmin()]
    ridge = float(rng.uniform(1.0, 3.0)) if worn else 1.0
    for corner, sign in ((right, 1), (left, -1)):  # the straps to the ears
        ear = (x + sign * face.half_width, y + (0 if worn else 4))
        pen.line([tuple(corner), ear], 0.9, shade(cloth, 0.85))
    upper = [
        (left[0], y + top + 1.5),
        (x - 7, y + top),
        (x, y + top - ridge),
        (x + 7, y + top),
        (right[0], y + top + 1.5),
    ]
    pen.polygon(np.vstack([np.array(upper), cheeks[np.argsort(-cheeks[:, 0])]]), cloth)
    pen.line(upper, 0.8, shade(cloth, 0.8))
    wide = (right[0] - left[0]) / 2
    for share in (0.35, 0.6) if rng.random() < 0.7 else ():  # pleats
        level = y + top + share * (bottom - top)
        pen.line([(x - wide * 0.8, level), (x, level + 1), (x + wide * 0.8, level)], 0.7, shade(cloth, 0.84))


def _lit(picture: Image.Image, rng: np.random.Generator, tint: Color) -> Image.Image:
    """Return the picture with random gain, tint, light gradient and grain, and the `tint` of a site."""
    pixels = np.asarray(picture, np.float32)
    height, width = pixels.shape[:2]
    slope = rng.normal(0, 0.06, 2)
    light = 1.0 + slope[0] * np.linspace(-1, 1, width)[None, :] + slope[1] * np.linspace(-1, 1, height)[:, None]
    gain = rng.uniform(0.88, 1.1) * (1.0 + rng.normal(0, 0.015, 3))
    # The same grain in all channels, as in dim photographs; standard_normal is faster in float32.
    if tint != (1.0, 1.0, 1.0):
        gain = gain * np.array(tint)
    grain = rng.standard_normal((height, width), np.float32) * 3.0
    lit = pixels * (light[:, :, None] * gain).astype(np.float32) + grain[:, :, None]
    return Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))
