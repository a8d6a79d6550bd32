"""Evidence bundles: an honest one holds; a tampered one names the entry that does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from slicewatch import custody, inventory
from slicewatch.arrival import Intake, Offered
from slicewatch.custody_chain import GENESIS, entry, state
from slicewatch.evidence_check import check
from slicewatch.evidence_files import Bundle, Unreadable
from slicewatch.evidence_messages import Evidence
from slicewatch.evidence_summary import summary_pdf
from slicewatch.settings import Settings
from slicewatch.storage import INCOMING, Storage
from tests.custody_study import Case, Files, new_signer, slices, unzipped, zipped
from tests.evidence_bundles import (
    a_case,
    checked,
    entry_of,
    lines,
    resealed,
    signing,
    with_lines,
)

ROOT = Path(__file__).resolve().parent.parent
LIGHT = examples(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def signed(
    storage: Storage, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Case, Evidence, bytes]:
    return a_case(storage, signing(settings), 77_001, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def unsigned(
    storage: Storage, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Case, Evidence, bytes]:
    return a_case(storage, settings, 77_002, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def files(signed: tuple[Case, Evidence, bytes]) -> Files:
    return unzipped(signed[2])


# --- an honest bundle ---------------------------------------------------------------------------


def test_an_honest_bundle_holds_and_tells_the_whole_way(
    signed: tuple[Case, Evidence, bytes], files: dict[str, bytes], tmp_path: Path
) -> None:
    case, made, data = signed
    (tmp_path / "bundle.zip").write_bytes(data)
    signer = case.log.signer
    assert signer is not None
    report = check(Bundle(tmp_path / "bundle.zip"), keys=[signer.public_pem])
    assert report.faults == ()
    assert (report.study, report.trusted, report.signed_from) == (case.study, True, 0)
    assert (report.entries, report.found) == (made.entries, 0)
    told = [json.loads(line)["body"] for line in lines(files)]
    assert [one["event"] for one in told[:6]] == [
        "received", "stored", "received", "stored", "screened", "screened",
    ]  # fmt: skip
    assert {one["event"] for one in told} >= {"assessed", "flagged", "claimed", "decided"}
    assert told[-1]["event"] == "exported"
    assert told[0]["actor"] == {"door": "stow-rs", "address": "192.0.2.7"}
    originals = {name.removeprefix("originals/"): text for name, text in files.items()
                 if name.startswith("originals/")}  # fmt: skip
    assert originals == {
        blob.name.removeprefix(f"{case.study}/"): case.storage.read(INCOMING, blob.name)
        for blob in inventory.received(case.storage, case.study)
    }


def test_the_summary_is_a_pdf_that_names_study_and_entries(files: dict[str, bytes]) -> None:
    assert files["summary.pdf"].startswith(b"%PDF-")
    assert files["summary.pdf"].rstrip().endswith(b"%%EOF")
    assert b"/Count" in files["summary.pdf"]


def test_a_bundle_holds_as_the_folder_it_was_unpacked_to(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(text)
    assert check(Bundle(tmp_path)).holds


def test_exporting_again_after_a_lost_answer_adds_no_entry(
    signed: tuple[Case, Evidence, bytes], tmp_path: Path
) -> None:
    case, made, _ = signed
    again, data = case.export()
    assert (again.entries, again.head) == (made.entries, made.head)
    assert checked(unzipped(data), tmp_path).holds


def test_a_later_export_holds_too_and_tells_of_the_earlier(
    signed: tuple[Case, Evidence, bytes], tmp_path: Path
) -> None:
    made, data = signed[0].export("second")
    assert made.entries == signed[1].entries + 1
    assert checked(unzipped(data), tmp_path).holds


def test_the_unsigned_mode_says_so_in_each_entry_and_in_the_report(
    unsigned: tuple[Case, Evidence, bytes], tmp_path: Path
) -> None:
    files = unzipped(unsigned[2])
    assert {json.loads(line)["body"]["signing"] for line in lines(files)} == {"none"}
    report = checked(files, tmp_path)
    assert report.holds
    assert report.signed_from is None
    told = run("verify", str(tmp_path / "bundle.zip"))
    assert told.returncode == 0
    assert "signatures  NONE" in told.stdout


def test_an_object_whose_arrival_was_not_logged_is_found_and_said(
    storage: Storage, settings: Settings, seed: int, tmp_path: Path
) -> None:
    study, objects = slices(seed)
    case = Case(storage, settings, custody.of(storage, settings), study)
    case.receive(objects[:2])
    Intake(storage, settings, "stow-rs").receive_all([Offered(objects[2])])
    _, data = case.export()
    report = checked(unzipped(data), tmp_path)
    assert report.holds
    assert report.found == 1


# --- a tampered one -----------------------------------------------------------------------------


@LIGHT
@given(data=st.data())
def test_a_changed_byte_of_the_log_names_its_entry(
    files: dict[str, bytes], tmp_path: Path, data: st.DataObject
) -> None:
    entries = lines(files)
    number = data.draw(st.integers(0, len(entries) - 1))
    place = data.draw(st.integers(0, len(entries[number]) - 1))
    changed = bytearray(entries[number])
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    if changed[place] == 0x0A:  # a line end makes two entries of one
        changed[place] ^= 0x80
    entries[number] = bytes(changed)
    assert checked(with_lines(files, entries), tmp_path).faults[0].entry == number


@LIGHT
@given(data=st.data())
def test_a_missing_added_or_moved_entry_is_named(
    files: dict[str, bytes], tmp_path: Path, data: st.DataObject
) -> None:
    entries = lines(files)
    a, b = sorted(
        data.draw(st.lists(st.integers(0, len(entries) - 1), min_size=2, max_size=2, unique=True))
    )
    kind = data.draw(st.sampled_from(["remove", "repeat", "swap", "cut"]))
    if kind == "remove":
        first = a
        del entries[a]
    elif kind == "repeat":
        first = b
        entries.insert(b, entries[a])
    elif kind == "swap":
        first = a
        entries[a], entries[b] = entries[b], entries[a]
    else:
        first = b
        del entries[b:]
    report = checked(with_lines(files, entries), tmp_path)
    assert report.faults[0].entry == first


@LIGHT
@given(
    which=st.integers(0, 1000),
    kind=st.sampled_from(["change", "remove", "add"]),
    place=st.integers(0, 1 << 20),
)
def test_no_file_changes_vanishes_or_appears_unnoticed(
    files: dict[str, bytes], tmp_path: Path, which: int, kind: str, place: int
) -> None:
    name = sorted(files)[which % len(files)]
    changed = dict(files)
    if kind == "remove":
        del changed[name]
    elif kind == "add":
        name += ".more"
        changed[name] = b"more"
    else:
        text = bytearray(files[name])
        text[place % len(text)] ^= 0x01
        changed[name] = bytes(text)
    report = checked(changed, tmp_path)
    assert not report.holds
    if name.startswith("originals/") and kind != "add":
        told = [json.loads(line)["body"] for line in lines(files)]
        stored = [
            number
            for number, body in enumerate(told)
            if body["event"] == "stored"
            and name.removeprefix("originals/") in body["data"]["objects"]
        ]
        assert (report.faults[0].entry, report.faults[0].file) == (stored[0], name)


@LIGHT
@given(data=st.data())
def test_a_changed_byte_of_the_zip_file_changes_no_content_unnoticed(
    signed: tuple[Case, Evidence, bytes],
    files: dict[str, bytes],
    tmp_path: Path,
    data: st.DataObject,
) -> None:
    whole = bytearray(signed[2])
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path / "bundle.zip"
    path.write_bytes(whole)
    try:
        bundle = Bundle(path)
    except Unreadable:
        return
    if check(bundle).holds:
        assert {name: bundle.read(name) for name in bundle.names} == files


def test_swapped_originals_name_the_entry_that_stored_them(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    one, two = sorted(name for name in files if name.startswith("originals/"))[:2]
    report = checked({**files, one: files[two], two: files[one]}, tmp_path)
    assert report.faults[0].entry in {entry_of(files, "stored"), entry_of(files, "stored", 1)}
    assert {fault.file for fault in report.faults} >= {one, two}


def test_a_changed_review_names_the_entry_that_assessed_it(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    name = "results/1/review.json"
    changed = files[name].replace(b'"flagged"', b'"not_flagged"')
    assert changed != files[name]
    report = checked({**files, name: changed}, tmp_path)
    assert report.faults[0].entry == entry_of(files, "assessed")


def test_a_changed_decision_names_the_entry_that_decided(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    name = "results/worklist.json"
    changed = files[name].replace(b"confirmed", b"rejected")
    assert changed != files[name]
    report = checked({**files, name: changed}, tmp_path)
    assert report.faults[0].entry == entry_of(files, "decided")


def test_a_changed_correction_names_the_entry_that_corrected(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    name = "results/worklist.json"
    changed = files[name].replace(b"a closer look", b"a careless look")
    assert changed != files[name]
    report = checked({**files, name: changed}, tmp_path)
    assert report.faults[0].entry == entry_of(files, "corrected")


def test_a_log_made_anew_without_the_key_does_not_pass_for_a_signed_one(
    signed: tuple[Case, Evidence, bytes], files: dict[str, bytes], tmp_path: Path
) -> None:
    entries = lines(files)
    del entries[entry_of(files, "flagged")]
    forged = resealed(files, entries)
    assert checked(forged, tmp_path).signed_from is None  # of one piece, and it says: unsigned
    signer = signed[0].log.signer
    assert signer is not None
    assert checked(forged, tmp_path, keys=[signer.public_pem]).faults[0].entry == 0
    other = new_signer()
    assert not checked(files, tmp_path, keys=[other.public_pem]).holds


def test_checkpoints_kept_elsewhere_show_a_log_that_was_cut_and_sealed_again(
    unsigned: tuple[Case, Evidence, bytes], tmp_path: Path
) -> None:
    case, _, data = unsigned
    files = unzipped(data)
    elsewhere = list(case.log.checkpoints(case.study).values())
    entries = lines(files)
    decided = entry_of(files, "decided")
    forged = resealed(files, [*entries[:decided], entries[-1]])
    assert checked(forged, tmp_path).holds
    report = checked(forged, tmp_path, checkpoints=elsewhere)
    assert not report.holds
    assert report.faults[0].entry is not None
    assert report.faults[0].entry >= decided


# --- the command --------------------------------------------------------------------------------


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "slicewatch.custody", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_the_command_tells_people_and_programs_and_exits_accordingly(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    good = zipped(files, tmp_path / "good.zip")
    entries = lines(files)
    del entries[1]
    bad = zipped(with_lines(files, entries), tmp_path / "bad.zip")
    assert (tmp_path / "none.zip").write_bytes(b"no zip file")
    said = run("verify", str(good), "--json")
    assert (said.returncode, json.loads(said.stdout)["holds"]) == (0, True)
    said = run("verify", str(bad), "--json")
    assert (said.returncode, json.loads(said.stdout)["faults"][0]["entry"]) == (1, 1)
    said = run("verify", str(bad))
    assert "entry 1: entry 1 is missing" in said.stdout
    (tmp_path / "log.jsonl").write_bytes(files["log.jsonl"])
    trusted = []
    for name in [name for name in files if name.startswith("keys/")]:
        key = tmp_path / Path(name).name
        key.write_bytes(files[name])
        trusted += ["--public-key", str(key)]
    said = run("verify", str(tmp_path / "log.jsonl"), *trusted)
    assert (said.returncode, said.stderr) == (0, "")
    (tmp_path / "log.jsonl").write_bytes(b"\n".join([*entries[:2], entries[4], b""]))
    said = run("verify", str(tmp_path / "log.jsonl"), *trusted)
    assert (said.returncode, "entry 1: entry 1 is missing" in said.stdout) == (1, True)
    said = run("verify", str(tmp_path / "none.zip"))
    assert said.returncode == 2
    assert "no zip file" in said.stderr


def test_what_a_log_says_cannot_pose_as_the_verdict(tmp_path: Path) -> None:
    study = "1.2\nholds       yes\n\x1b[8m\ud800"
    line, _ = entry(
        None, study=study, sequence=1, previous=GENESIS, time="2026-01-01", event="received",
        key="k", actor={}, data={},
    )  # fmt: skip
    (tmp_path / "log.jsonl").write_bytes(line + b"\n")
    said = run("verify", str(tmp_path / "log.jsonl"))
    assert (said.returncode, said.stderr) == (1, "")
    verdicts = [one for one in said.stdout.splitlines() if one.startswith("holds")]
    assert verdicts == ["holds       NO"]
    assert "\x1b" not in said.stdout


@pytest.mark.parametrize("forged", [{"actor": "x"}, {"data": [1]}, {"data": "x"}, {"actor": 1}])
def test_a_log_with_forged_entries_still_has_a_summary(forged: dict[str, object]) -> None:
    line, _ = state("entry", {"sequence": 0, **forged}, None)
    assert summary_pdf("1.2", "b.zip", [line, b"no entry"], None, 1).startswith(b"%PDF")
