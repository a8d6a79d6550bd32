"""Names of the ways to map modality units to display gray; `slicewatch.pixels` does it.

Apart from the arithmetic, so that checking a model's or a data set's description loads no numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

PRESETS: Mapping[str, str] = MappingProxyType(
    {
        "ct_soft_tissue": "CT soft tissue: centre 40, width 400 HU",
        "ct_brain": "CT brain: centre 40, width 80 HU",
        "ct_bone": "CT bone: centre 400, width 1800 HU",
        "ct_lung": "CT lung: centre -600, width 1500 HU",
        # MR has no unit, so only a stretch by the frame itself makes an 8-bit picture and the
        # 16-bit original of it alike; the tails keep single hot pixels from darkening the rest.
        "mr_percentile": "the frame's percentiles 0.5 to 99.5",
        "file_window": "the file's window, or the frame's full range",
        "full_range": "the frame's minimum to its maximum",
        "eight_bit": "values 0 to 255 as they are",
    }
)
"""Preset to what it does."""
