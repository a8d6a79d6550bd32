"""The emulator keeps a folder to itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_host.azurite import Azurite


def test_a_folder_in_use_is_refused_to_a_second_emulator(tmp_path: Path) -> None:
    with (
        Azurite(tmp_path),
        pytest.raises(RuntimeError, match="in use by another storage emulator"),
        Azurite(tmp_path),
    ):
        pass
