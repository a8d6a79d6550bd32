"""Screening on site: what is suspicious leaves first, and nothing unseen is held back."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.config import LookFirst, Night
from edge.entries import Entry, Look, State
from edge.look_first import route
from slicewatch import closings
from tests import studies
from tests.edge.cloud import Cloud
from tests.edge.running_agent import Dcmtk, RunningAgent, wait_for
from tests.tiny_model import NAME, write_tiny_model

_LESION = (5, 6)


def write_study(folder: Path, seed: int, lesion: tuple[int, ...] = ()) -> list[Path]:
    folder.mkdir()
    paths = []
    for dataset in studies.ct_series(12, seed=seed, lesion=lesion):
        paths.append(folder / f"{int(dataset.InstanceNumber):03d}.dcm")
        paths[-1].write_bytes(studies.to_bytes(dataset))
    return paths


def look_first(calm: str, rest: str) -> str:
    return (
        f'[look_first]\nmodels = "models"\ncalm = "{calm}"\nrest = "{rest}"\n'
        "context_slices = 1\n"
        # A night that is never now.
        "[night]\nbegin = 00:00:00\nend = 00:00:00\n"
    )


def test_a_suspicious_slice_leaves_at_once_with_its_neighbours_and_a_summary_tells_of_the_rest(
    tmp_path: Path, cloud: Cloud, dcmtk: Dcmtk
) -> None:
    write_tiny_model(tmp_path / "models")
    calm = write_study(tmp_path / "calm", 61)
    suspicious = write_study(tmp_path / "suspicious", 62, _LESION)
    tables = look_first("summary", "night")
    with RunningAgent(tmp_path, cloud.url, look_first=tables) as agent:
        assert dcmtk.store(agent.port, [*calm, *suspicious])[0] == 0
        wait_for(lambda: len(cloud.closed) == 2, "both studies are closed")
        states = {state: counts[0] for state, counts in agent.get("status")["states"].items()}
    sent = [one.header for one in cloud.objects.values()]
    numbers = sorted(h.instance_number or 0 for h in sent if h.modality == "CT")
    assert numbers == [4, 5, 6, 7]
    assert states["kept"] == 12
    assert states["night"] == 8
    summaries = [one for one in cloud.objects.values() if one.header.modality == "SR"]
    assert {one.header.study_instance_uid for one in summaries} == {
        studies.new_uid("study", 61),
        studies.new_uid("study", 62),
    }
    told = {one.header.study_instance_uid: one.data.decode("latin-1") for one in summaries}
    for text in told.values():
        assert NAME in text
        assert "Not a medical device" in text
    assert "kept on site" in told[studies.new_uid("study", 61)]
    assert "sent in the night window" in told[studies.new_uid("study", 62)]
    lists = dict(cloud.closed)
    assert len(lists[studies.new_uid("study", 61)] or []) == 13, "what stays counts as missing"
    [all_held] = closings.read_statement(cloud.statements[studies.new_uid("study", 61)])
    assert (all_held.whereabouts, len(all_held.instances)) == ("held", 12)
    assert (all_held.model.partition("@")[0], all_held.outcome) == (NAME, "screened")
    assert len(all_held.model_sha256) == 64
    said = closings.read_statement(cloud.statements[studies.new_uid("study", 62)])
    assert {one.whereabouts: len(one.instances) for one in said} == {"sent": 4, "later": 8}
    seen = [found.sop_instance_uid for one in said for found in one.detections]
    assert seen == [
        header.sop_instance_uid
        for header in sorted(sent, key=lambda header: header.instance_number or 0)
        if header.modality == "CT" and header.instance_number in _LESION
    ]


def test_what_no_model_covers_is_never_held_back(
    tmp_path: Path, cloud: Cloud, dcmtk: Dcmtk
) -> None:
    write_tiny_model(tmp_path / "models")
    objects = [studies.cr_image(seed=63), studies.structured_report(seed=63)]
    paths = []
    for number, dataset in enumerate(objects):
        paths.append(tmp_path / f"{number}.dcm")
        paths[-1].write_bytes(studies.to_bytes(dataset))
    tables = look_first("summary", "summary")
    with RunningAgent(tmp_path, cloud.url, look_first=tables) as agent:
        assert dcmtk.store(agent.port, paths)[0] == 0
        wait_for(lambda: len(cloud.objects) == 2, "both are sent")
        wait_for(lambda: cloud.closed, "the study is closed")


def test_with_the_defaults_everything_is_sent_and_suspicious_studies_first(
    tmp_path: Path, cloud: Cloud, dcmtk: Dcmtk
) -> None:
    write_tiny_model(tmp_path / "models")
    cloud.down()
    calm = write_study(tmp_path / "calm", 64)
    suspicious = write_study(tmp_path / "suspicious", 65, _LESION)
    cloud_table = (
        '[cloud]\nurl = "{url}"\nbackoff_first_s = 0.05\nbackoff_max_s = 0.3\nconnections = 1\n'
    )
    tables = look_first("send", "send")
    with RunningAgent(tmp_path, cloud.url, look_first=tables, cloud=cloud_table) as agent:
        assert dcmtk.store(agent.port, [*calm, *suspicious])[0] == 0
        wait_for(lambda: agent.count("looking") == 0, "all are screened")
        cloud.up()
        wait_for(lambda: len(cloud.objects) == 24, "all are sent")
    first = [cloud.objects[sha256].header.study_instance_uid for sha256 in cloud.order[:12]]
    assert set(first) == {studies.new_uid("study", 65)}


def _members(seen: set[int]) -> list[tuple[Entry, Look]]:
    return [
        (
            Entry(
                sha256=str(n),
                size=1,
                study="1",
                series="2",
                sop_instance=str(n),
                sop_class="3",
                modality="CT",
                instance_number=99 - n,
                source="",
                received="",
                state=State.WAITING,
            ),
            Look(str(n), "screened", "m@1", "h", 0.9 * (n in seen), int(n in seen), float(n)),
        )
        for n in range(10)
    ]


@pytest.mark.parametrize(
    ("seen", "context", "at_once"),
    [
        (set(), 3, set()),
        ({5}, 0, set()),
        ({5}, 2, {3, 4, 6, 7}),
        ({0, 9}, 1, {1, 8}),
    ],
)
def test_neighbours_are_counted_by_position(
    seen: set[int], context: int, at_once: set[int]
) -> None:
    looks = _members(seen)
    waiting = [entry for entry, look in looks if not look.detections]
    config = LookFirst(Path(), "night", "summary", context, 0.0, 1)
    routes = route(config, waiting, looks)
    assert {int(k) for k, state in routes.items() if state is State.READY} == at_once
    others = {state for state in routes.values() if state is not State.READY}
    assert others == {State.KEPT if seen else State.NIGHT}


def test_a_night_may_pass_midnight() -> None:
    from datetime import time

    night = Night(time(20), time(6))
    assert [night.contains(time(h)) for h in (5, 6, 12, 20, 23)] == [True, False, False, True, True]
    assert not Night(time(0), time(0)).contains(time(0))
