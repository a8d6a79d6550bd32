"""Zip files for the doors that take them."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Mapping


def archive(entries: Mapping[str, bytes], links: tuple[str, ...] = ()) -> bytes:
    """A zip file of these entries; those named in `links` are symbolic links."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as writer:
        for name, data in entries.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            kind = stat.S_IFLNK if name in links else stat.S_IFREG
            entry.external_attr = (kind | 0o644) << 16
            writer.writestr(entry, data)
    return out.getvalue()
