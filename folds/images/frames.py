"""Choose one frame of a file of several."""

from __future__ import annotations

from folds.images.content_index import UnreadableImageError


def frame_of(frame: int | str | None, frames: int) -> int:
    """Return the place of the chosen frame among `frames`; ``middle`` of an even number is the later one.

    Raises
    ------
    UnreadableImageError : there is no such frame.
    """
    at = frames // 2 if isinstance(frame, str) else frame or 0
    if at >= max(1, frames):
        raise UnreadableImageError(
            f"has {frames:,} frame{'s' * (frames != 1)}, counted from 0, and `frame={at}` is none"
        )
    return at


def frame_remark(frame: int | str | None, at: int, frames: int) -> tuple[str, ...]:
    """Return a remark about the frame that was read; () for a file of one."""
    if frames < 2:
        return ()
    if frame is None:
        return ("of several frames: the first one is read (`frame=N` or `frame=middle` chooses another)",)
    return (f"of several frames: {'the middle one' if isinstance(frame, str) else f'frame {at}'} is read",)
