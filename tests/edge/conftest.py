"""A cloud, an agent, and DCMTK's clients, for the tests of this folder."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import studies
from tests.edge.cloud import Cloud
from tests.edge.running_agent import Dcmtk, RunningAgent

_seeds = itertools.count(900_000)

type Files = Callable[..., list[Path]]
"""`files(count, **attributes)` writes a small CT study and gives its paths."""


@pytest.fixture(scope="session")
def dcmtk() -> Dcmtk:
    """Where DCMTK is not installed its tests are skipped, which says so; in CI they fail."""
    try:
        return Dcmtk()
    except RuntimeError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with Cloud() as running:
        yield running


@pytest.fixture
def agent(tmp_path: Path, cloud: Cloud) -> Iterator[RunningAgent]:
    with RunningAgent(tmp_path, cloud.url) as running:
        yield running


@pytest.fixture
def files(tmp_path: Path) -> Files:
    def write(count: int, *, seed: int | None = None, **attributes: Any) -> list[Path]:
        seed = next(_seeds) if seed is None else seed
        folder = tmp_path / f"study-{seed}-{len(list(tmp_path.glob('study-*')))}"
        folder.mkdir()
        paths = []
        for number in range(1, count + 1):
            pixels = np.full((16, 16), number, np.int16)
            dataset = studies.ct_image(pixels, seed=seed, number=number, **attributes)
            path = folder / f"{number:04d}.dcm"
            path.write_bytes(studies.to_bytes(dataset))
            paths.append(path)
        return paths

    return write
