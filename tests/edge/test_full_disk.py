"""A disk that is really full: what was acknowledged stays, what does not fit is refused."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid
from pynetdicom import AE

from edge.database import Database, DatabaseUnavailable
from tests import studies
from tests.edge.cloud import Cloud
from tests.edge.conftest import Files
from tests.edge.running_agent import Dcmtk, RunningAgent, dataset_of, wait_for

_SIZE = 12 << 20
_SPOOL = '[spool]\nfolder = "disk/spool"\nmin_free_mib = 1\n'


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB, whose writes fail with ENOSPC when it is full."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Take the disk's space but for `leave` bytes."""
    ballast = disk / "ballast"
    about = os.statvfs(disk)
    free = about.f_bavail * about.f_frsize
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - leave)
    return ballast


def slice_of(path: Path, size: int, number: int) -> Path:
    """A CT slice of about `size` bytes."""
    rows = size // 2 // 512
    pixels = np.random.default_rng(number).integers(0, 999, (rows, 512)).astype(np.int16)
    path.write_bytes(studies.to_bytes(studies.ct_image(pixels, seed=36, number=number)))
    return path


def test_a_full_disk_refuses_what_does_not_fit_keeps_the_rest_and_goes_on_when_there_is_room(
    tmp_path: Path, disk: Path, cloud: Cloud, dcmtk: Dcmtk, files: Files
) -> None:
    cloud.down()
    first, last = files(2)
    in_memory = slice_of(tmp_path / "in-memory.dcm", 3 << 20, 1)
    on_disk = slice_of(tmp_path / "on-disk.dcm", 6 << 20, 2)
    agent = RunningAgent(tmp_path, cloud.url, spool=_SPOOL)
    agent.spool = disk / "spool"
    with agent:
        ballast = fill(disk, leave=5 << 19)
        # DCMTK's clients stop at the first refusal; one that goes on shows that all goes on.
        ae = AE("CT1")
        ae.add_requested_context(studies.CT_STORAGE, uid.ExplicitVRLittleEndian)
        association = ae.associate("127.0.0.1", agent.port, ae_title="SLICEWATCH")
        answers = [
            association.send_c_store(path).Status for path in (first, in_memory, on_disk, last)
        ]
        association.release()
        assert answers == [0, 0xA700, 0xA700, 0]
        assert not list((agent.spool / "arriving").iterdir())
        assert len(list((agent.spool / "objects").rglob("*.dcm"))) == 2, "no half object"
        assert agent.get("status")["refused_arrivals"] == {"the disk is nearly full": 2}
        assert agent.get("health") == {"status": "ok"}
        ballast.unlink()
        wait_for(lambda: agent.get("status")["free_bytes"] > 10 << 20, "there is room")
        assert dcmtk.store(agent.port, [in_memory, on_disk])[0] == 0
        cloud.up()
        wait_for(lambda: len(cloud.objects) == 4, "what was acknowledged arrives")
    assert sorted(dataset_of(one.data) for one in cloud.objects.values()) == sorted(
        dataset_of(path.read_bytes()) for path in (first, last, in_memory, on_disk)
    )


def test_a_journal_without_room_says_so_and_keeps_what_it_has(disk: Path) -> None:
    file = disk / "journal.sqlite"
    schema, probe = "CREATE TABLE IF NOT EXISTS t (x BLOB)", "SELECT x FROM t"
    database = Database(file, schema, probe)

    def put(size: int) -> None:
        with database.transaction() as db:
            db.execute("INSERT INTO t VALUES (?)", (bytes(size),))

    put(1000)
    ballast = fill(disk, leave=0)
    with pytest.raises(DatabaseUnavailable, match="database or disk is full"):
        put(1 << 20)
    assert database.rows("SELECT count(*) FROM t") == [(1,)]
    ballast.unlink()
    put(1 << 20)
    assert database.rows("SELECT count(*) FROM t") == [(2,)]
    database.close()
    fill(disk, leave=0)
    with pytest.raises(DatabaseUnavailable):
        Database(disk / "another.sqlite", schema, probe)


def test_an_agent_that_starts_on_a_full_disk_leaves_its_journal_alone(
    tmp_path: Path, disk: Path, cloud: Cloud, dcmtk: Dcmtk, files: Files
) -> None:
    cloud.down()
    agent = RunningAgent(tmp_path, cloud.url, spool=_SPOOL)
    agent.spool = disk / "spool"
    with agent:
        assert dcmtk.store(agent.port, files(3))[0] == 0
        wait_for(lambda: agent.get("status")["pending_objects"] == 3, "all are noted")
        agent.kill()
        ballast = fill(disk, leave=0)
        # With room in the journal's own files it runs; without, it ends and says why.
        try:
            agent.start()
            agent.kill()
        except AssertionError:
            assert "journal.sqlite cannot be read or written" in agent.said()
        assert not list((agent.spool / "aside").iterdir()), "a full disk is no damage"
        ballast.unlink()
        agent.start()
        cloud.up()
        wait_for(lambda: len(cloud.objects) == 3, "what was acknowledged arrives")
        wait_for(lambda: cloud.closed, "the study is closed")
    assert len(cloud.closed[0][1] or []) == 3, "its list is whole: the journal was not lost"
