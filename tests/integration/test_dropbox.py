"""Files that are put into the dropbox are taken in as if they had been sent."""

from __future__ import annotations

from slicewatch import inventory
from slicewatch.records import StudyStatus
from slicewatch.storage import DROPBOX
from tests import studies
from tests.integration.archives import archive
from tests.integration.running_app import RunningApp


def drop(app: RunningApp, name: str, data: bytes) -> None:
    app.storage.write(DROPBOX, name, data)


def await_taken(app: RunningApp, *names: str) -> None:
    """Wait until the blobs are gone from the dropbox."""
    app.wait(
        lambda: {blob.name for blob in app.storage.listing(DROPBOX)} & set(names),
        lambda left: not left,
        "the dropbox was not emptied",
    )


def test_dicom_and_zip_files_are_taken_in_and_reviewed(app: RunningApp, seed: int) -> None:
    objects = studies.study_bytes(6, seed=seed, lesion=(3, 4))
    study = studies.new_uid("study", seed)
    one, *rest = objects.items()
    drop(app, f"{seed}/slice.dcm", one[1])
    drop(app, f"{seed}/rest.zip", archive(dict(rest)))
    await_taken(app, f"{seed}/slice.dcm", f"{seed}/rest.zip")
    assert app.close(study, list(objects)).status_code == 202
    review = app.await_review(study)
    assert review.status is StudyStatus.FLAGGED
    assert review.coverage.screened == 6
    assert sorted(app.stored(study).values()) == sorted(objects.values())


def test_a_file_that_is_dropped_again_changes_nothing(app: RunningApp, seed: int) -> None:
    objects = studies.study_bytes(3, seed=seed)
    study = studies.new_uid("study", seed)
    packed = archive(objects)
    drop(app, f"{seed}/first.zip", packed)
    await_taken(app, f"{seed}/first.zip")
    app.close(study, list(objects))
    review = app.await_review(study)
    app.await_end(study)
    drop(app, f"{seed}/first.zip", packed)
    drop(app, f"{seed}/second.zip", packed)
    await_taken(app, f"{seed}/first.zip", f"{seed}/second.zip")
    app.await_end(study)
    assert inventory.latest_review(app.storage, study) == review
    assert len(app.stored(study)) == 3


def test_a_file_that_cannot_be_taken_is_in_quarantine(app: RunningApp, seed: int) -> None:
    bad = b"no DICOM: %d" % seed
    drop(app, f"{seed}/bad.dcm", bad)
    await_taken(app, f"{seed}/bad.dcm")
    assert app.quarantined(bad) is not None
