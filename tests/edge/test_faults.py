"""What must not lose an object: kills at any moment, no network, damaged files."""

from __future__ import annotations

import hashlib
import os
import random
import time
from pathlib import Path

import pydicom
import pytest

from tests.edge.cloud import Cloud
from tests.edge.conftest import Files
from tests.edge.running_agent import Dcmtk, RunningAgent, acknowledged, dataset_of, wait_for

_REAL = Path(__file__).parents[3] / "shared" / "data" / "soft-tissue"
_KILLS = int(os.environ.get("SLICEWATCH_EDGE_KILLS", "20"))
_OBJECTS = 300


def real_slices(folder: Path) -> list[Path]:
    """Real CT slices. storescu writes sequences with their lengths, so here they have them."""
    paths: list[Path] = []
    for source in sorted(_REAL.glob("*/CT/image/*.dcm"))[:_OBJECTS]:
        dataset = pydicom.dcmread(source)
        for element in dataset:
            if element.VR == "SQ":
                element.is_undefined_length = False
                for item in element.value:
                    item.is_undefined_length_sequence_item = False
        paths.append(folder / f"{len(paths):04d}.dcm")
        dataset.save_as(paths[-1])
    return paths


def drained(agent: RunningAgent) -> bool:
    facts = agent.get("status")
    return bool(facts["pending_objects"] == 0)


def test_kills_at_twenty_random_moments_lose_nothing_and_send_nothing_twice(
    tmp_path: Path, cloud: Cloud, dcmtk: Dcmtk, files: Files
) -> None:
    paths = real_slices(tmp_path) if _REAL.is_dir() else files(_OBJECTS)
    syntax = "-xi" if _REAL.is_dir() else "-xe"  # theirs: storescu is not to convert them
    moments = random.Random(20)
    agent = RunningAgent(tmp_path, cloud.url)
    done: set[Path] = set()
    for kill in range(_KILLS):
        agent.start()
        # A share of them before each kill, so that a fast machine is not done before the last;
        # on a slow one nothing is acknowledged for a while, and the moments come later.
        due = paths[: (kill + 1) * len(paths) // _KILLS]
        sender = dcmtk.start_store(agent.port, [p for p in due if p not in done], syntax)
        time.sleep(moments.uniform(0.05, 0.6) * (1 if done else 1 + kill / 4))
        agent.kill()
        done.update(acknowledged(sender.communicate(timeout=60)[0]))
    assert done, "nothing was acknowledged before a kill: the test proves nothing"
    with agent:
        if left := [p for p in paths if p not in done]:
            code, said = dcmtk.store(agent.port, left, syntax)
            assert code == 0, said
            done.update(acknowledged(said))
        wait_for(lambda: drained(agent), "all is sent")
        offered_again = agent.get("status")["offered_again"]
    assert len(done) == len(paths)
    sent = {hashlib.sha256(dataset_of(one.data)).digest() for one in cloud.objects.values()}
    expected = {hashlib.sha256(dataset_of(path.read_bytes())).digest() for path in paths}
    assert len(cloud.objects) == len(expected), "each object is in the cloud exactly once"
    assert sent == expected, "byte for byte"
    extra = sum(cloud.offers.values()) - len(cloud.objects)
    assert extra <= offered_again, "only what a kill cut off may have been offered again"


def test_without_network_everything_is_received_and_goes_up_when_it_is_back(
    tmp_path: Path, cloud: Cloud, dcmtk: Dcmtk, files: Files
) -> None:
    cloud.down()
    paths = files(25) + files(5)
    with RunningAgent(tmp_path, cloud.url) as agent:
        code, said = dcmtk.store(agent.port, paths)
        assert code == 0, said
        wait_for(lambda: agent.get("status")["pending_objects"] == 30, "all are noted")
        assert agent.get("status")["oldest_pending_s"] > 0
        wait_for(lambda: agent.get("status")["cloud_failures_in_a_row"] > 2, "attempts fail")
        agent.kill()  # and the power goes, too
        agent.start()
        cloud.up()
        wait_for(lambda: len(cloud.closed) == 2, "both studies are closed")
        assert agent.get("status")["last_error"] == ""
    assert sorted(dataset_of(one.data) for one in cloud.objects.values()) == sorted(
        dataset_of(path.read_bytes()) for path in paths
    )
    assert set(cloud.offers.values()) == {1}


@pytest.mark.parametrize("damage", ["garbage", "truncated", "missing"])
def test_a_damaged_journal_is_set_aside_and_rebuilt_from_the_spool(
    tmp_path: Path, cloud: Cloud, dcmtk: Dcmtk, files: Files, damage: str
) -> None:
    cloud.down()
    paths = files(4)
    agent = RunningAgent(tmp_path, cloud.url)
    with agent:
        assert dcmtk.store(agent.port, paths)[0] == 0
    journal = agent.spool / "journal.sqlite"
    for log in agent.spool.glob("journal.sqlite-*"):
        log.unlink()
    match damage:
        case "garbage":
            journal.write_bytes(random.Random(1).randbytes(20_000))
        case "truncated":
            journal.write_bytes(journal.read_bytes()[:5000])
        case _:
            journal.unlink()
    cloud.up()
    with agent:
        wait_for(lambda: len(cloud.objects) == 4, "all are sent from the spool")
        wait_for(lambda: cloud.closed, "the study is closed")
    assert cloud.closed[0][1] is None, "a list that may lack objects is not sent"
    aside = [path.name for path in (agent.spool / "aside").iterdir()]
    assert any("journal" in name for name in aside) == (damage != "missing")


def test_a_damaged_spool_file_is_set_aside_with_its_reason_and_the_rest_goes_on(
    tmp_path: Path, cloud: Cloud, dcmtk: Dcmtk, files: Files
) -> None:
    cloud.down()
    agent = RunningAgent(tmp_path, cloud.url)
    with agent:
        assert dcmtk.store(agent.port, files(4))[0] == 0
    spooled = sorted((agent.spool / "objects").rglob("*.dcm"))
    flipped = bytearray(spooled[0].read_bytes())
    flipped[-1] ^= 1
    spooled[0].write_bytes(flipped)
    spooled[1].unlink()
    stranger = agent.spool / "objects" / "00" / ("00" * 32 + ".dcm")
    stranger.write_bytes(b"no object")
    (agent.spool / "arriving" / "folder").mkdir()
    cloud.up()
    with agent:
        wait_for(lambda: drained(agent), "the rest is sent")
        assert agent.count("sent") == 2
        assert agent.count("aside") == 2
        events = [event["text"] for event in agent.get("status")["events"]]
    assert "the spooled file is not what was received" in events
    assert "the spooled file is missing" in events
    aside = sorted(path.read_text() for path in (agent.spool / "aside").glob("*.txt"))
    assert len(aside) == 3, "the changed one, the stranger and the folder"
    assert len(cloud.objects) == 2


def test_it_ends_in_order_when_asked_and_two_agents_do_not_share_a_spool(
    tmp_path: Path, cloud: Cloud
) -> None:
    agent = RunningAgent(tmp_path, cloud.url)
    agent.start()
    with pytest.raises(AssertionError, match="another agent uses"):
        RunningAgent(tmp_path, cloud.url).start()
    assert agent.stop() == 0


def test_status_metrics_and_health_tell_what_is_so(
    agent: RunningAgent, cloud: Cloud, dcmtk: Dcmtk, files: Files
) -> None:
    cloud.refuses = lambda one: 0xC000 if one.header.instance_number == 2 else None
    dcmtk.store(agent.port, files(3))
    wait_for(lambda: agent.count("sent") == 2, "two are sent")
    assert agent.count("refused") == 1
    assert agent.get("health") == {"status": "ok"}
    metrics = agent.get("metrics")
    assert 'slicewatch_edge_objects{state="sent"} 2.0' in metrics
    assert 'slicewatch_edge_objects{state="refused"} 1.0' in metrics
    assert "slicewatch_edge_received_objects_total 3.0" in metrics
    code, said = dcmtk.run(*(_python(), "-m", "edge", "status", "--once", "--config", agent.config))
    assert code == 0, said
    assert "refused" in said
    assert "failure reason C000H" in said


def test_what_was_refused_is_kept_and_can_be_offered_again(
    tmp_path: Path, cloud: Cloud, dcmtk: Dcmtk, files: Files
) -> None:
    cloud.refuses = lambda one: 0xA900
    agent = RunningAgent(tmp_path, cloud.url)
    with agent:
        dcmtk.store(agent.port, files(2))
        wait_for(lambda: agent.count("refused") == 2, "they are refused")
        assert len(list((agent.spool / "objects").rglob("*.dcm"))) == 2
    cloud.refuses = lambda one: None
    code, said = dcmtk.run(_python(), "-m", "edge", "status", "--config", str(agent.config))
    assert code == 3, said
    assert "NOT RUNNING" in said
    code, said = dcmtk.run(
        _python(), "-m", "edge", "release", "refused", "--config", str(agent.config)
    )
    assert "2 objects will be sent" in said
    with agent:
        wait_for(lambda: len(cloud.objects) == 2, "they are sent")


def _python() -> str:
    import sys

    return sys.executable
