"""What an object may cost, and how a refusal is said: shared by all readers of hostile bytes."""

from __future__ import annotations

from dataclasses import dataclass

from slicewatch.records import Reason
from slicewatch.settings import Settings


class Rejected(Exception):
    """An object that cannot be used.

    `detail` names the cause with numbers, tags and transfer syntaxes only: no values of the
    object's text attributes, so it may be logged and stored.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that are checked before anything is decoded.

    Attributes:
        max_bytes: of a file, and of a deflated dataset after inflation.
        max_pixels_per_frame: rows × columns.
        max_frames: NumberOfFrames.
        max_decoded_bytes: rows × columns × samples × bytes × frames. Frames are decoded one at a
            time, so this bounds work; memory is bounded by the pixels of a frame.
        max_elements: data elements and items looked at in one object.
    """

    max_bytes: int = 1 << 30
    max_pixels_per_frame: int = 64_000_000
    max_frames: int = 4096
    max_decoded_bytes: int = 4 << 30
    max_elements: int = 5_000_000

    @classmethod
    def of(cls, app: Settings) -> Limits:
        """The bounds that the app settings ask for."""
        return cls(
            max_bytes=app.max_object_bytes,
            max_pixels_per_frame=app.max_frame_pixels,
            max_frames=app.max_frames,
            max_decoded_bytes=app.max_decoded_bytes,
        )


DEFAULT_LIMITS = Limits()
