"""The integrity issues that there are, and how severe each is; `slicewatch.integrity` finds them.

Apart from the checks, so that a triage policy is checked without loading what they calculate with.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

SEVERITIES = ("info", "warning", "error")
"""From the least to the most severe."""

ISSUES: Mapping[str, str] = MappingProxyType(
    {
        # identity
        "instance-changed": "error",
        "mixed-patients": "error",
        "mixed-patients-in-study": "error",
        "mixed-frames-of-reference": "warning",
        "study-uid-mismatch": "error",
        "misfiled-object": "error",
        # the file
        "executable-preamble": "error",
        "foreign-preamble": "warning",
        "meta-uid-mismatch": "warning",
        "trailing-data": "info",
        # pixels
        "repeated-pixels": "warning",
        "duplicate-image": "info",
        # spacing
        "slice-gap": "warning",
        "uneven-spacing": "warning",
        "separate-stacks": "info",
        # times
        "time-malformed": "warning",
        "time-in-future": "warning",
        "content-before-study": "warning",
        "content-before-acquisition": "warning",
        # slices that do not belong
        "not-measured": "info",
        "noise-outlier": "warning",
        "sharpness-outlier": "warning",
        "table-outlier": "warning",
        # copies
        "copied-region": "warning",
        "copied-region-between-slices": "warning",
        # replaced texture
        "smoothed-region": "warning",
        "foreign-noise": "warning",
        # compression and resampling
        "compression-traces": "warning",
        "resampling-traces": "info",
        "lossy-undeclared": "warning",
        "lossy-contradiction": "warning",
        "lossy-mixed": "warning",
        # contradicting attributes
        "mixed-equipment": "warning",
        "mixed-settings": "warning",
        "serial-number-shared": "warning",
        "exposure-contradiction": "warning",
        "time-outlier": "warning",
        # digital signatures
        "signature-invalid": "error",
        "signature-missing": "warning",
        "signature-unchecked": "info",
        # files within the file
        "polyglot-file": "error",
        "private-program": "error",
        "private-archive": "warning",
        "private-opaque": "info",
        "private-oversized": "info",
    }
)
"""Code to severity."""
