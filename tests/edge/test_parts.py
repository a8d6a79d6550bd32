"""The agent's parts by themselves: configuration, study watch, folder watch, spool."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.config import Folder, Study, load
from edge.entries import State
from edge.folder_watch import FolderWatch
from edge.intake import Intake
from edge.journal import Journal
from edge.spool import Damaged, DiskFull, Spool
from edge.study_watch import StudyWatch
from edge.toml_table import ConfigError
from tests import studies
from tests.edge.cloud import Cloud
from tests.edge.conftest import Files
from tests.edge.running_agent import RunningAgent, wait_for

_ROOT = Path(__file__).parents[2]
_SOUND = """\
[[folder]]
path = "in"
[spool]
folder = "spool"
[cloud]
url = "https://slicewatch.example/api"
"""


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", min_free_bytes=0, max_bytes=1 << 30)


@pytest.fixture
def journal(spool: Spool) -> Iterator[Journal]:
    journal = Journal(spool.journal_file)
    yield journal
    journal.close()


@pytest.fixture
def intake(spool: Spool, journal: Journal) -> Iterator[Intake]:
    intake = Intake(
        spool,
        journal,
        max_object_bytes=1 << 30,
        first_state=State.READY,
        arrived=lambda entries: None,
    )
    yield intake
    intake.noting.stop()


# --- configuration ------------------------------------------------------------------------------


def test_the_example_is_a_sound_configuration_that_shows_the_defaults(tmp_path: Path) -> None:
    text = (_ROOT / "edge" / "edge.example.toml").read_text()
    example, bare = tmp_path / "edge.toml", tmp_path / "bare.toml"
    example.write_text(text)
    bare.write_text(
        '[[receive.peer]]\nae_title = "CT1"\naddresses = ["10.20.0.0/24"]\n'
        '[spool]\nfolder = "/var/lib/slicewatch-edge"\n'
        '[cloud]\nurl = "https://slicewatch.example/api"\n'
    )
    assert load(example) == load(bare)
    for name in ("key", "cloud.key", "cloud.token", "words.txt", "cloud-ca.crt", "pseudonyms.key"):
        (tmp_path / name).write_text("x" * 64)
    for name in ("edge.crt", "edge.key", "scanners.crt"):
        (tmp_path / name).touch()
    example.write_text(re.sub(r"(?m)^# (?=\[|[a-z_]+ = )", "", text))
    everything = load(example)
    assert everything.look_first
    assert everything.deidentify
    assert everything.receive
    assert everything.receive.tls
    assert everything.folders


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t + "[clouds]\n", r"edge.toml:7: clouds: unknown key"),
        (lambda t: t + "batch_mib = 0\n", r"edge.toml:7: cloud.batch_mib: is 0; expected"),
        (lambda t: t + 'quiet_s = "x"\n', r"cloud.quiet_s: unknown key"),
        (lambda t: t.replace("https:", "ftp:"), r"edge.toml:6: cloud.url: is no http"),
        (lambda t: t.replace('folder = "spool"\n', ""), r"spool.folder: is missing"),
        (lambda t: t.replace("[[folder]]", "[folder]"), r"folder: expected tables"),
        (lambda t: t.replace('[[folder]]\npath = "in"\n', ""), r"nothing could arrive"),
        (lambda t: t + "[receive]\n", r"receive.peer: no \[\[receive.peer\]\]"),
        (lambda t: t + '[deidentify]\nkey_file = "none"\n', r"key_file: .*none does not exist"),
        (
            lambda t: t + '[deidentify]\nkey_file = "edge.toml"\noptions = ["safe_private"]\n',
            r"safe_private: goes together with the option",
        ),
        (
            lambda t: t + '[deidentify]\nkey_file = "edge.toml"\nsafe_private = ["A:0018,0C"]\n',
            r"'A:0018,0C' is not like",
        ),
        (lambda t: t + 'token_file = "none"\n', r"token_file: .*none does not exist"),
        (lambda t: t + 'headers = { Authorization = "x" }\n', r"may be set here"),
        (lambda t: t + 'headers = { "a b" = "x" }\n', r"may be set here"),
        (lambda t: t + 'headers = { a = "\\n" }\n', r"expected"),
        (lambda t: t + "[night\n", r"edge.toml:7: "),
        (
            lambda t: t + '[[receive.peer]]\nae_title = "A\\\\B"\naddresses = ["::1"]\n',
            r"receive.peer\[1\].ae_title: .*AE title",
        ),
        (
            lambda t: t + '[[receive.peer]]\nae_title = "A"\naddresses = ["10.0.0.300"]\n',
            r"receive.peer\[1\].addresses: ",
        ),
    ],
)
def test_an_error_names_file_line_and_key(
    tmp_path: Path, change: Callable[[str], str], said: str
) -> None:
    file = tmp_path / "edge.toml"
    file.write_text(change(_SOUND))
    with pytest.raises(ConfigError, match=said):
        load(file)


def test_the_unit_names_the_command_that_there_is() -> None:
    unit = (_ROOT / "edge" / "slicewatch-edge.service").read_text()
    assert "python -m edge run --config /etc/slicewatch-edge/edge.toml" in unit


# --- studies ------------------------------------------------------------------------------------


def add(intake: Intake, spool: Spool, seed: int, number: int = 1) -> str:
    arriving = spool.create()
    arriving.write_bytes(studies.to_bytes(studies.ct_image(seed=seed, number=number)))
    study = intake.take(arriving, source="test").study_instance_uid
    intake.noting.flush()
    return study


def test_a_study_is_over_after_a_quiet_period_and_open_again_when_more_comes(
    spool: Spool, journal: Journal, intake: Intake
) -> None:
    clock = Clock()
    watch = StudyWatch(journal, Study("quiet", 60.0, 5.0), clock)
    study = add(intake, spool, 71)
    watch.touch(study)
    clock.now += 59
    assert watch.close_due() == []
    watch.touch(study)
    clock.now += 59
    assert watch.close_due() == []
    clock.now += 1
    assert watch.close_due() == [study]
    assert [row.uid for row in journal.studies(over=True)] == [study]
    watch.touch(add(intake, spool, 71, number=2))
    assert [row.uid for row in journal.studies(over=False)] == [study]


def test_the_end_of_the_last_association_closes_a_study_but_an_abort_waits_for_quiet(
    spool: Spool, journal: Journal, intake: Intake
) -> None:
    clock = Clock()
    watch = StudyWatch(journal, Study("association", 60.0, 5.0), clock)
    study = add(intake, spool, 72)
    watch.touch(study, "a")
    watch.touch(study, "b")
    watch.association_ended("a", released=True)
    clock.now += 30
    assert watch.close_due() == [], "the other one still sends"
    watch.association_ended("b", released=True)
    clock.now += 5
    assert watch.close_due() == [study]
    watch.touch(study, "c")
    watch.association_ended("c", released=False)
    clock.now += 59
    assert watch.close_due() == []
    clock.now += 1
    assert watch.close_due() == [study]


def test_a_restart_and_a_wall_clock_that_jumps_neither_close_nor_forget_a_study(
    spool: Spool, journal: Journal, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    clock = Clock()
    config = Study("quiet", 60.0, 5.0)
    study = add(intake, spool, 73)
    StudyWatch(journal, config, clock).touch(study)
    restarted = StudyWatch(journal, config, clock)
    real = time.time
    for jump in (1e9, -1e9):
        monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
        assert restarted.close_due() == []
    clock.now += 60
    assert restarted.close_due() == [study]


# --- folders ------------------------------------------------------------------------------------


def test_a_file_is_taken_when_it_stood_still_and_what_is_no_object_is_put_aside(
    tmp_path: Path, spool: Spool, journal: Journal, intake: Intake
) -> None:
    inbox = tmp_path / "in"
    (inbox / "deep").mkdir(parents=True)
    clock = Clock()
    watch = FolderWatch(
        Folder(inbox, settle_s=2.0, poll_s=0.1, urgent=True),
        spool,
        intake,
        StudyWatch(journal, Study("quiet", 1.0, 1.0), clock),
        clock,
    )
    data = studies.to_bytes(studies.ct_image(seed=74))
    (inbox / "deep" / "slice.dcm").write_bytes(data[:1000])
    (inbox / "writing.part").write_bytes(data)
    (inbox / "letter.txt").write_text("not an image")
    assert watch.look() == 0
    clock.now += 2
    (inbox / "deep" / "slice.dcm").write_bytes(data)
    watch.look()
    assert journal.totals() == {}, "it still grows"
    assert (inbox / "rejected" / "letter.txt").read_text() == "not an image"
    assert "not a DICOM file" in (inbox / "rejected" / "letter.txt.txt").read_text()
    clock.now += 2
    assert watch.look() == 1
    intake.noting.flush()
    assert journal.totals()[State.READY] == (1, len(data))
    entry = journal.entries(State.READY)[0]
    assert spool.verify(entry.sha256).read_bytes() == data
    assert not (inbox / "deep" / "slice.dcm").exists()
    assert (inbox / "writing.part").exists()
    assert journal.studies(over=False)[0].urgent
    clock.now += 9
    assert watch.look() == 0


def test_a_watched_folder_reaches_the_cloud(tmp_path: Path, cloud: Cloud, files: Files) -> None:
    folder = '[[folder]]\npath = "in"\nsettle_s = 0.1\npoll_s = 0.05\n'
    with RunningAgent(tmp_path, cloud.url, folder=folder):
        for path in files(3):
            path.rename(tmp_path / "in" / path.name)
        wait_for(lambda: cloud.closed, "the study is closed")
    assert len(cloud.objects) == 3
    assert not list((tmp_path / "in").iterdir())


# --- the spool ----------------------------------------------------------------------------------


def test_an_object_is_flushed_to_the_disk_before_it_is_acknowledged(
    spool: Spool, journal: Journal, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    flushed: list[str] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"
        flushed.append(kind)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    add(intake, spool, 75)
    assert sorted(flushed) == ["file", "folder"]
    pragmas = [
        journal._database._db.execute(f"PRAGMA {p}").fetchone()[0]
        for p in ("synchronous", "journal_mode")
    ]
    assert pragmas == [2, "wal"], "FULL: a commit is on the disk"


def test_a_full_disk_is_told_before_anything_is_taken(spool: Spool, tmp_path: Path) -> None:
    full = Spool(tmp_path / "full", min_free_bytes=1 << 60, max_bytes=1 << 60)
    with pytest.raises(DiskFull, match="MiB must stay so"):
        full.check_space(0)
    with pytest.raises(DiskFull, match="at most"):
        spool.check_space(1 << 30, 1)


def test_spool_and_journal_are_for_their_owner_only(spool: Spool, journal: Journal) -> None:
    for path in (spool.folder, spool.arriving, spool.journal_file):
        assert path.stat().st_mode & 0o077 == 0, path
    with pytest.raises(Damaged, match="missing"):
        spool.verify("0" * 64)


def test_studies_of_long_ago_are_forgotten_whole_or_not_at_all(
    spool: Spool, journal: Journal, intake: Intake
) -> None:
    add(intake, spool, 76)
    add(intake, spool, 77)
    add(intake, spool, 77, number=2)
    journal.settle(journal.entries(State.READY)[:2], State.SENT)
    assert journal.forget_before("9999") == 1
    assert [row.uid for row in journal.studies(over=False)] == [studies.new_uid("study", 77)]
    assert len(journal.spooled()) == 2


def test_neither_names_nor_ids_of_patients_are_in_the_agents_log(
    tmp_path: Path, cloud: Cloud, files: Files
) -> None:
    folder = '[[folder]]\npath = "in"\nsettle_s = 0.1\npoll_s = 0.05\n'
    (tmp_path / "in").mkdir()
    agent = RunningAgent(tmp_path, cloud.url, folder=folder)
    with agent:
        paths = files(2)
        study = str(studies.new_uid("study", int(re.findall(r"study-(\d+)", str(paths[0]))[0])))
        cloud.refuses = lambda one: 0xC000
        paths[0].write_bytes(paths[0].read_bytes()[:-9])
        for path in paths:
            path.rename(tmp_path / "in" / path.name)
        wait_for(lambda: agent.count("refused"), "it is refused")
        wait_for(lambda: list((tmp_path / "in").rglob("rejected/*")), "one is rejected")
    said = agent.said()
    assert "refused" in said
    for secret in ("Test^Generated", "GEN-", study):
        assert secret not in said
