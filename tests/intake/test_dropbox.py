"""The blob drop: what lands there is stored or quarantined, and removed."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from slicewatch import inventory
from slicewatch.storage import DROPBOX, Storage
from tests.doors import Engine
from tests.intake.senders import (
    a_study,
    drop,
    name_of,
    quarantined,
    zipped,
)


@pytest.mark.parametrize("archived", [False, True])
def test_a_dropped_file_is_stored_and_removed(
    call: Any, engine: Engine, storage: Storage, seed: int, archived: bool
) -> None:
    study, files = a_study(seed, 1)
    blob = drop(storage, zipped(files) if archived else next(iter(files.values())))
    call("dropbox", blob)
    assert len(inventory.received(storage, study)) == 1
    assert storage.info(DROPBOX, name_of(blob)) is None
    assert engine.runtime_status(study) in ("PENDING", "RUNNING")


def test_an_event_that_is_repeated_is_harmless(
    call: Any, engine: Engine, storage: Storage, seed: int
) -> None:
    study, files = a_study(seed, 1)
    blob = drop(storage, next(iter(files.values())))
    call("dropbox", blob)
    engine.publish(study)
    call("dropbox", blob)
    assert engine.events(study) == []
    assert len(inventory.received(storage, study)) == 1


@pytest.mark.parametrize("make", [lambda: b"not DICOM " + uuid.uuid4().bytes,
                                  lambda: b"PK\x03\x04" + uuid.uuid4().bytes])  # fmt: skip
def test_a_bad_dropped_file_ends_in_quarantine(call: Any, storage: Storage, make: Any) -> None:
    data = make()
    blob = drop(storage, data)
    call("dropbox", blob)
    assert quarantined(storage, data)
    assert storage.info(DROPBOX, name_of(blob)) is None


def test_a_file_that_is_still_empty_is_left_for_the_event_of_its_content(
    call: Any, storage: Storage
) -> None:
    blob = drop(storage, b"")
    call("dropbox", blob)
    assert storage.info(DROPBOX, name_of(blob)) is not None
    storage.delete(DROPBOX, name_of(blob))


def test_a_file_that_is_replaced_while_it_is_read_is_not_removed(
    call: Any, storage: Storage, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, files = a_study(seed, 2)
    first, second = files.values()
    blob = drop(storage, first)
    read = storage.read

    def replaced_after(container: str, name: str) -> bytes:
        data = read(container, name)
        if container == DROPBOX:
            storage.write(DROPBOX, name, second)
        return data

    monkeypatch.setattr(storage, "read", replaced_after)
    call("dropbox", blob)
    monkeypatch.undo()
    assert storage.read(DROPBOX, name_of(blob)) == second
    storage.delete(DROPBOX, name_of(blob))
