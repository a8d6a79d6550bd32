"""Slices as other scanners might have made them: gray values change, places do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slicewatch.dataset_checks import read_manifest
from tests import studies
from training.__main__ import main
from training.sources import read_gray

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("default")]


@pytest.fixture(name="torch")
def _torch() -> Any:
    return pytest.importorskip("torch")


def disc(count: int) -> Any:
    """Pictures of a bright disc on gray, N×3×64×64."""
    import torch

    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    inside = (rows - 40) ** 2 + (columns - 20) ** 2 < 100
    return (0.3 + 0.4 * inside.float()).expand(count, 3, 64, 64).clone()


def changed(pictures: Any, seed: int = 0) -> Any:
    import torch

    from training.appearance import change_appearance

    return change_appearance(pictures, torch.Generator().manual_seed(seed))


def test_pictures_stay_gray_and_within_range(torch: Any) -> None:
    for before in (disc(64), torch.zeros(8, 3, 64, 64), torch.ones(8, 3, 64, 64)):
        after = changed(before)
        assert after.shape == before.shape
        assert bool(torch.isfinite(after).all())
        assert 0 <= float(after.min()) <= float(after.max()) <= 1
        assert torch.equal(after[:, 0], after[:, 1])
        assert torch.equal(after[:, 0], after[:, 2])


def test_most_pictures_change_each_in_its_own_way_and_some_stay_as_served(torch: Any) -> None:
    before = disc(200)
    after = changed(before)
    same = [torch.equal(one, other) for one, other in zip(before, after, strict=True)]
    assert 0.15 < sum(same) / len(same) < 0.45
    different = [picture for picture, unchanged in zip(after, same, strict=True) if not unchanged]
    means = {round(float(picture.mean()), 4) for picture in different}
    assert len(means) > 0.9 * len(different)


def test_a_lesion_stays_where_its_box_is(torch: Any) -> None:
    before = disc(200)
    inside = before[0, 0] > 0.5
    for picture in changed(before)[:, 0]:
        # Shading may make one side brighter; close to its edge the disc still stands out.
        around = torch.zeros_like(inside)
        around[28:53, 8:33] = True
        ring = around & ~inside
        assert float(picture[inside].mean()) > float(picture[ring].mean()) + 0.05


def test_the_same_seed_gives_the_same_pictures(torch: Any) -> None:
    assert torch.equal(changed(disc(8), 3), changed(disc(8), 3))
    assert not torch.equal(changed(disc(8), 3), changed(disc(8), 4))


def test_a_data_set_is_written_anew_with_other_gray_values_and_the_same_boxes(
    torch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, image in enumerate(studies.ct_series(4, seed=1, lesion=(2,))):
        (tmp_path / f"{number}.dcm").write_bytes(studies.to_bytes(image))
        (tmp_path / f"{number}.txt").write_text("0 0.5 0.5 0.25 0.25")
    data, out = tmp_path / "data", tmp_path / "changed"
    prepare = ["prepare", "soft-tissue", "--dicom", str(tmp_path), "--out", str(data)]
    main([*prepare, "--validation-share", "1"])
    assert main(["change-appearance", str(data), str(out), "--seed", "7"]) == 0
    before, after = (sorted((one / "images" / "val").iterdir()) for one in (data, out))
    assert [path.name for path in before] == [path.name for path in after]
    assert len(before) == 4
    for one, other in zip(before, after, strict=True):
        assert (read_gray(one) != read_gray(other)).mean() > 0.5
    labels = [sorted((one / "labels" / "val").iterdir()) for one in (data, out)]
    texts = [[path.read_text() for path in paths] for paths in labels]
    assert texts[0] == texts[1]
    assert load_entries(data) == load_entries(out)
    for wrong in ([str(data), str(out)], [str(tmp_path), str(tmp_path / "new")]):
        assert main(["change-appearance", *wrong]) == 2
    told = capsys.readouterr().err
    assert "exists: name a new folder" in told
    assert "holds no manifest.csv" in told


def load_entries(data: Path) -> list[tuple[str, str]]:
    text = (data / "manifest.csv").read_text()
    return [(entry.name, entry.classes) for entry in read_manifest(text)]
