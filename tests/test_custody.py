"""The custody log: appended by many at once, told twice and written once, missing nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from slicewatch import custody, custody_chain
from slicewatch.custody import CHECKPOINT_EVERY, Event, Happening, Log
from slicewatch.settings import SettingError, Settings, load
from slicewatch.storage import (
    CHECKPOINTS,
    CUSTODY,
    Storage,
    StorageUnavailable,
)
from tests import studies
from tests.custody_study import new_signer

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def study(seed: int) -> str:
    return studies.new_uid("custody", seed)


def log_of(storage: Storage) -> Log:
    """A log as another process has it: nothing is known of what is stored."""
    return Log(storage, storage, None)


def seen(*keys: str) -> list[Happening]:
    return [Happening(Event.VIEWED, key, {"reader": "R"}, {"item": key}) for key in keys]


def chained(lines: Iterator[bytes], signer: custody_chain.Signer | None = None) -> list[str]:
    """The keys of the entries, which are all in place and follow each other."""
    keys = {}
    if signer is not None:
        keys = {signer.fingerprint: custody_chain.public_key(signer.public_pem)}
    previous, told = custody_chain.GENESIS, []
    for number, line in enumerate(lines):
        one = custody_chain.read(line, custody_chain.ENTRY, keys)
        assert (one.body["sequence"], one.body["previous"]) == (number, previous)
        assert one.signed == (signer is not None)
        previous = one.hash
        told.append(one.body["key"])
    return told


def test_many_functions_that_append_at_once_lose_and_double_nothing(
    storage: Storage, study: str
) -> None:
    signer = new_signer()
    logs = [Log(storage, storage, signer) for _ in range(4)]
    failures: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for step in range(5):
                logs[thread % 4].append(study, seen(f"{thread}-{step}", f"all-{step}"))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not failures
    told = chained(log_of(storage).lines(study), signer)
    assert sorted(told) == sorted(
        {f"{thread}-{step}" for thread in range(12) for step in range(5)}
        | {f"all-{step}" for step in range(5)}
    )


_APPENDING = """
import sys
from slicewatch import custody, settings, storage
log = custody.of(storage.current(), settings.current())
print("ready", flush=True)
sys.stdin.readline()
for step in range(6):
    log.append(sys.argv[1], [
        custody.Happening(custody.Event.VIEWED, key)
        for key in (f"{sys.argv[2]}-{step}", f"all-{step}")
    ])
"""


def test_many_processes_that_append_at_once_lose_and_double_nothing(
    storage: Storage, settings: Settings, study: str
) -> None:
    environment = {**os.environ, "AzureWebJobsStorage": settings.storage}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _APPENDING, study, str(number)],
            env=environment, cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True,
        )
        for number in range(4)
    ]  # fmt: skip
    try:
        for one in processes:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
        for one in processes:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        assert [one.wait(60) for one in processes] == [0, 0, 0, 0]
    finally:
        for one in processes:
            one.kill()
            one.communicate()
    told = chained(log_of(storage).lines(study))
    assert sorted(told) == sorted(
        {f"{number}-{step}" for number in range(4) for step in range(6)}
        | {f"all-{step}" for step in range(6)}
    )


def test_what_is_told_again_is_written_once_by_any_process(storage: Storage, study: str) -> None:
    first = log_of(storage).append(study, seen("a", "b", "a"))
    again = log_of(storage).append(study, seen("b", "c", "a"))
    assert [mark.sequence for mark in first] == [0, 1, 0]
    assert [mark.sequence for mark in again] == [1, 2, 0]
    assert chained(log_of(storage).lines(study)) == ["a", "b", "c"]


def test_an_answer_that_got_lost_does_not_double_the_entry(
    storage: Storage, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = log_of(storage)
    log.append(study, seen("a"))
    append = Storage.append

    def losing(self: Storage, *arguments: object, **named: object) -> None:
        append(self, *arguments, **named)  # type: ignore[arg-type]
        raise StorageUnavailable("the answer got lost")

    monkeypatch.setattr(Storage, "append", losing)
    with pytest.raises(StorageUnavailable):
        log.append(study, seen("b"))
    monkeypatch.undo()
    log.append(study, seen("b", "c"))
    assert chained(log.lines(study)) == ["a", "b", "c"]


def test_an_append_is_refused_loudly_while_storage_is_away(settings: Settings, study: str) -> None:
    away = Storage(
        dataclasses.replace(
            settings,
            storage="DefaultEndpointsProtocol=http;AccountName=a;AccountKey=QQ==;"
            "BlobEndpoint=http://127.0.0.1:1/a;",
            storage_timeout_s=1.0,
        )
    )
    with pytest.raises(StorageUnavailable):
        log_of(away).append(study, seen("a"))


def test_checkpoints_away_do_not_stop_entries_and_are_made_up_for(
    storage: Storage, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = log_of(storage)

    def failing(*_: object) -> None:
        raise StorageUnavailable("away")

    monkeypatch.setattr(log, "_write_checkpoint", failing)
    log.append(study, [Happening(Event.DECIDED, "decided")])
    assert log.checkpoints(study) == {}
    monkeypatch.undo()
    log.append(study, seen("next"))
    assert list(log.checkpoints(study)) == ["00000001.json"]


def test_a_checkpoint_is_written_every_so_many_entries(storage: Storage, study: str) -> None:
    log = log_of(storage)
    log.append(study, seen(*map(str, range(CHECKPOINT_EVERY - 1))))
    assert log.checkpoints(study) == {}
    [mark] = log.append(study, seen("last"))
    [text] = log.checkpoints(study).values()
    body = custody_chain.read(text, custody_chain.CHECKPOINT, {}).body
    assert (body["study"], body["sequence"], body["head"]) == (study, mark.sequence, mark.hash)


def test_a_log_that_was_cut_still_takes_entries_and_contradicts_its_checkpoint(
    storage: Storage, study: str, caplog: pytest.LogCaptureFixture
) -> None:
    log = log_of(storage)
    log.append(study, [*seen("a", "b"), Happening(Event.DECIDED, "c")])
    lines = list(log.lines(study))
    name = f"{study}/log/0000.jsonl"
    storage.delete(CUSTODY, name)
    storage.create_append_blob(CUSTODY, name)
    storage.append(CUSTODY, name, lines[0] + b"\n" + lines[1][:40], position=0)
    log.append(study, [Happening(Event.DECIDED, "d")])
    after = list(log_of(storage).lines(study))
    assert after[:2] == [lines[0], lines[1][:40]]
    assert json.loads(after[2])["body"]["key"] == "d"
    assert json.loads(after[2])["body"]["sequence"] == 2
    assert "contradicts its checkpoint 2" in caplog.text
    assert len([*storage.listing(CHECKPOINTS, f"{study}/00000002")]) == 2


def test_a_long_log_goes_on_in_further_parts(
    storage: Storage, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(custody, "PART_ENTRIES", 3)
    one, two = log_of(storage), log_of(storage)
    keys = [str(number) for number in range(8)]
    for key in keys:
        (one if int(key) % 2 else two).append(study, seen(key))
    assert chained(log_of(storage).lines(study)) == keys
    assert len([*storage.listing(CUSTODY, f"{study}/log/")]) == 3


def test_entries_larger_than_a_block_are_split_over_several(storage: Storage, study: str) -> None:
    large = [
        Happening(Event.STORED, str(number), {}, {"objects": {"x": "y" * (1 << 20)}})
        for number in range(4)
    ]
    log_of(storage).append(study, large)
    assert chained(log_of(storage).lines(study)) == ["0", "1", "2", "3"]


# --- statements and keys ------------------------------------------------------------------------


@given(data=st.data(), signed=st.booleans())
def test_a_statement_has_one_spelling(data: st.DataObject, signed: bool) -> None:
    signer = _SIGNER if signed else None
    keys = {_SIGNER.fingerprint: custody_chain.public_key(_SIGNER.public_pem)}
    value = data.draw(
        st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers(), max_size=3)
    )
    line, hashed = custody_chain.state("entry", {"data": value}, signer)
    read = custody_chain.read(line, "entry", keys)
    assert (read.body["data"], read.hash, read.signed) == (value, hashed, signed)
    place = data.draw(st.integers(0, len(line) - 1))
    changed = line[:place] + bytes([line[place] ^ 1 << data.draw(st.integers(0, 7))])
    for other in (changed + line[place + 1 :], line[:place], line + b" "):
        with pytest.raises(custody_chain.Broken):
            custody_chain.read(other, "entry", keys)


_SIGNER = new_signer()


@given(st.binary(max_size=200))
def test_reading_what_is_no_statement_says_so(text: bytes) -> None:
    with pytest.raises(custody_chain.Broken):
        custody_chain.read(text, "entry", {})


def pem(key: Ed25519PrivateKey | X25519PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def test_the_key_comes_from_a_setting_or_a_file(tmp_path: Path) -> None:
    text = pem(Ed25519PrivateKey.generate())
    (tmp_path / "key.pem").write_text(text)
    one_line = text.replace("\n", "\\n")
    signers = [
        custody_chain.signer_of(load(environ))
        for environ in (
            {"SLICEWATCH_CUSTODY_KEY": text},
            {"SLICEWATCH_CUSTODY_KEY": one_line},
            {"SLICEWATCH_CUSTODY_KEY_FILE": str(tmp_path / "key.pem")},
        )
    ]
    assert len({one.fingerprint for one in signers if one}) == 1
    assert custody_chain.signer_of(load({})) is None
    assert text[30:60] not in repr(load({"SLICEWATCH_CUSTODY_KEY": text}))


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"SLICEWATCH_CUSTODY_KEY": "no key"}, "SLICEWATCH_CUSTODY_KEY: no private key"),
        ({"SLICEWATCH_CUSTODY_KEY": pem(X25519PrivateKey.generate())}, "not an Ed25519 key"),
        ({"SLICEWATCH_CUSTODY_KEY": "@Microsoft.KeyVault(SecretUri=…)"}, "was not resolved"),
        ({"SLICEWATCH_CUSTODY_KEY_FILE": "/no/such/file"}, "cannot be read"),
        ({"SLICEWATCH_CUSTODY_KEY": "a", "SLICEWATCH_CUSTODY_KEY_FILE": "b"}, "both set"),
    ],
)
def test_a_key_that_cannot_be_used_is_said_by_its_setting(
    environ: dict[str, str], said: str
) -> None:
    with pytest.raises(SettingError, match=said):
        custody_chain.signer_of(load(environ))
