"""How the slices of a study arrive: twice, in any order, late, damaged, never."""

from __future__ import annotations

import random

import pytest
from pydicom import Dataset

from slicewatch import inventory
from slicewatch.records import Lane, Reason, StudyStatus
from slicewatch.stow import CONFLICTING_DUPLICATE
from tests import studies
from tests.integration.running_app import RunningApp, said


def poisoned(dataset: Dataset) -> bytes:
    """A slice whose header is fine and whose compressed pixel data is rubbish."""
    data = studies.to_bytes(dataset, studies.LOSSLESS["jpeg-2000"])
    start = data.index(b"\xff\x4f\xff\x51") + 4  # past SOC and SIZ, so that decoding begins
    return data[:start] + bytes(len(data) - start - 8) + data[-8:]


def test_the_order_and_the_number_of_times_change_nothing(app: RunningApp, seed: int) -> None:
    objects = studies.study_bytes(16, seed=seed, lesion=range(4, 9), others=True)
    study = studies.new_uid("study", seed)
    shuffled = list(objects.values()) * 2
    random.Random(seed).shuffle(shuffled)
    for start in range(0, len(shuffled), 7):
        assert app.store(shuffled[start : start + 7]).status_code == 200
    assert app.close(study, list(objects)).status_code == 202
    review = app.await_review(study)
    assert sorted(app.stored(study).values()) == sorted(objects.values())
    assert review.coverage.received_objects == len(objects)
    assert review.coverage.screened == 16
    assert [one.instance_number for one in review.findings[0].slices] == [4, 5, 6, 7, 8]
    assert review.integrity == ()


def test_sending_a_reviewed_study_again_makes_no_new_generation(app: RunningApp, seed: int) -> None:
    objects = studies.study_bytes(6, seed=seed, lesion=(2, 3))
    study = studies.new_uid("study", seed)
    app.send(study, objects)
    before = app.await_review(study)
    app.send(study, objects)
    app.decide(app.worklist(study)[0].id)
    app.await_status(study, "reviewed")
    app.await_end(study)
    assert inventory.latest_review(app.storage, study) == before
    assert len(app.worklist(study)) == 1


def test_other_bytes_under_one_uid_are_both_kept_and_go_to_the_forensic_lane(
    app: RunningApp, seed: int
) -> None:
    series = studies.ct_series(6, seed=seed)
    objects = {one.SOPInstanceUID: studies.to_bytes(one) for one in series}
    study = studies.new_uid("study", seed)
    changed = studies.to_bytes(studies.ct_image(seed=seed, number=3, SeriesDescription="other"))
    assert app.store(objects.values()).status_code == 200
    answer = app.store([changed])
    assert answer.status_code == 202
    (item,) = answer.json()["00081199"]["Value"]
    assert item["00081196"]["Value"] == [CONFLICTING_DUPLICATE]
    assert app.close(study, list(objects)).status_code == 202

    review = app.await_review(study)
    assert sorted(app.stored(study).values()) == sorted([*objects.values(), changed])
    assert review.status is StudyStatus.FLAGGED
    assert [flag.lane for flag in review.lanes] == [Lane.FORENSIC]
    concerned = [set(issue.blobs) for issue in review.integrity if issue.severity == "error"]
    variants = {name for name in app.stored(study) if series[2].SOPInstanceUID in name}
    assert len(variants) == 2
    assert variants in concerned
    (waiting,) = app.worklist(study)
    assert waiting.lane is Lane.FORENSIC
    assert app.messages(waiting.id)[0]["lane"] == "forensic"


def test_slices_that_come_while_a_reader_is_awaited_open_a_generation_that_supersedes(
    app: RunningApp, seed: int
) -> None:
    objects = studies.study_bytes(12, seed=seed, lesion=(3, 4, 5, 9, 10))
    study = studies.new_uid("study", seed)
    early = dict(list(objects.items())[:7])
    late = list(objects.values())[7:]
    app.send(study, early)
    first = app.await_review(study)
    (earlier,) = app.worklist(study)
    assert app.act(earlier.id, "claim", reader="reader-1").status_code == 200

    assert app.store(late).status_code == 200
    second = app.await_review(study, generation=2)
    assert (first.coverage.screened, second.coverage.screened) == (7, 12)
    assert (len(first.findings), len(second.findings)) == (1, 2)
    assert second.supersedes == 1
    old, new = app.worklist(study)
    assert (old.state, new.state, new.generation) == ("superseded", "open", 2)
    refused = app.act(old.id, "decision", reader="reader-1", verdict="confirmed")
    assert refused.status_code == 409
    assert refused.json()["item"]["state"] == "superseded"
    app.decide(new.id)
    app.await_status(study, "reviewed")
    app.await_end(study)
    assert inventory.read_review(app.storage, study, 1) == first, "the earlier review stays"


def test_slices_that_come_after_a_study_ended_are_reviewed_with_the_rest(
    app: RunningApp, seed: int
) -> None:
    objects = studies.study_bytes(10, seed=seed, lesion=(8, 9))
    study = studies.new_uid("study", seed)
    app.send(study, dict(list(objects.items())[:6]))
    assert app.await_review(study).status is StudyStatus.NOT_FLAGGED
    app.await_end(study)

    assert app.store(list(objects.values())[6:]).status_code == 200
    review = app.await_review(study, generation=2)
    assert review.status is StudyStatus.FLAGGED
    assert review.coverage.screened == 10
    assert review.supersedes == 1
    (item,) = app.worklist(study)
    assert (item.generation, item.state) == (2, "open")


def test_slices_that_come_after_the_decision_open_a_generation_and_the_decision_stays(
    app: RunningApp, seed: int
) -> None:
    objects = studies.study_bytes(8, seed=seed, lesion=(2, 3, 7))
    study = studies.new_uid("study", seed)
    app.send(study, dict(list(objects.items())[:5]))
    app.await_review(study)
    app.decide(app.worklist(study)[0].id, verdict="rejected")
    app.await_status(study, "reviewed")
    app.await_end(study)

    assert app.store(list(objects.values())[5:]).status_code == 200
    app.await_review(study, generation=2)
    decided, waiting = app.worklist(study)
    assert (decided.state, waiting.state) == ("decided", "open")
    assert decided.decision is not None
    assert decided.decision["verdict"] == "rejected"


# --- no flag is not "normal" --------------------------------------------------------------------


def test_a_poisoned_slice_does_not_sink_its_study(app: RunningApp, seed: int) -> None:
    series = studies.ct_series(9, seed=seed, lesion=(7, 8))
    objects = {one.SOPInstanceUID: studies.to_bytes(one) for one in series}
    objects[series[3].SOPInstanceUID] = poisoned(series[3])
    study = studies.new_uid("study", seed)
    app.send(study, objects)
    review = app.await_review(study)
    assert review.status is StudyStatus.FLAGGED
    assert len(review.findings) == 1
    assert review.coverage.screened == 8
    assert review.coverage.images == 9
    (rejected,) = review.coverage.rejected
    assert (rejected.reason, rejected.count) == (Reason.DECODE_FAILED, 1)
    assert rejected.detail
    assert [inventory.sop_instance_uid(blob) for blob in rejected.blobs] == [
        series[3].SOPInstanceUID
    ]
    assert app.status(study)["review"]["coverage"]["rejected"] == 1


def test_a_clean_study_with_a_poisoned_slice_is_incomplete(app: RunningApp, seed: int) -> None:
    series = studies.ct_series(5, seed=seed)
    objects = {one.SOPInstanceUID: studies.to_bytes(one) for one in series}
    last = series[-1]  # at the end, so that no gap beside it is an issue of its own
    objects[last.SOPInstanceUID] = poisoned(last)
    study = studies.new_uid("study", seed)
    app.send(study, objects)
    review = app.await_review(study)
    assert review.status is StudyStatus.INCOMPLETE
    assert (review.coverage.screened, review.coverage.images) == (4, 5)
    assert [one.reason for one in review.coverage.rejected] == [Reason.DECODE_FAILED]


def test_a_clean_study_of_which_a_slice_was_refused_is_incomplete(
    app: RunningApp, seed: int
) -> None:
    series = studies.ct_series(5, seed=seed)
    study = studies.new_uid("study", seed)
    *good, last = [studies.to_bytes(one) for one in series]
    answer = app.store([*good, last[:-500]], study)
    assert answer.status_code == 202, answer.text
    # Its sender lists what was taken, so that nothing is missing: only the refusal tells.
    assert app.close(study, [one.SOPInstanceUID for one in series[:-1]]).status_code == 202
    review = app.await_review(study)
    assert review.status is StudyStatus.INCOMPLETE
    assert (review.coverage.screened, review.coverage.missing) == (4, ())
    (rejected,) = review.coverage.rejected
    assert (rejected.reason, rejected.count) == (Reason.TRUNCATED, 1)
    assert app.store([last], study).status_code == 200, "it is sent again, and well"
    assert app.await_review(study, generation=2).status is StudyStatus.NOT_FLAGGED


def test_a_listed_slice_that_never_comes_makes_the_study_incomplete(
    app: RunningApp, seed: int
) -> None:
    objects = studies.study_bytes(6, seed=seed)
    study = studies.new_uid("study", seed)
    *came, lost = objects
    assert app.store([objects[one] for one in came]).status_code == 200
    answer = app.close(study, list(objects))
    assert answer.json()["missing"] == 1
    assert app.status(study)["status"] in ("receiving", "screening"), "it waits the quiet period"
    review = app.await_review(study)
    assert review.status is StudyStatus.INCOMPLETE
    assert review.coverage.missing == (lost,)
    assert review.coverage.screened == 5

    assert app.store([objects[lost]]).status_code == 200
    whole = app.await_review(study, generation=2)
    assert whole.status is StudyStatus.NOT_FLAGGED
    assert whole.coverage.missing == ()


def test_a_series_that_no_model_covers_is_not_screened(app: RunningApp, seed: int) -> None:
    radiograph = studies.cr_image(seed=seed)
    study = studies.new_uid("study", seed)
    app.send(study, {radiograph.SOPInstanceUID: studies.to_bytes(radiograph)})
    review = app.await_review(study)
    assert review.status is StudyStatus.NOT_SCREENED
    assert [(one.reason, one.count) for one in review.coverage.not_screened] == [
        (Reason.NO_MODEL, 1)
    ]
    assert review.models == ()


def test_a_series_without_model_beside_a_screened_one_makes_the_study_incomplete(
    app: RunningApp, seed: int
) -> None:
    objects = studies.study_bytes(4, seed=seed)
    radiograph = studies.cr_image(seed=seed)
    objects[radiograph.SOPInstanceUID] = studies.to_bytes(radiograph)
    study = studies.new_uid("study", seed)
    app.send(study, objects)
    review = app.await_review(study)
    assert review.status is StudyStatus.INCOMPLETE
    assert (review.coverage.screened, review.coverage.images) == (4, 5)


def test_a_study_without_images_is_not_screened(app: RunningApp, seed: int) -> None:
    report = studies.structured_report(seed=seed)
    study = studies.new_uid("study", seed)
    app.send(study, {report.SOPInstanceUID: studies.to_bytes(report)})
    review = app.await_review(study)
    assert review.status is StudyStatus.NOT_SCREENED
    assert review.coverage.images == 0


@pytest.mark.parametrize("syntax", ["rle", "jpeg-lossless-sv1", "jpeg-ls", "jpeg-2000", "deflated"])
def test_compressed_slices_are_reviewed_like_uncompressed_ones(
    app: RunningApp, seed: int, syntax: str
) -> None:
    series = studies.ct_series(4, seed=seed, lesion=(2, 3))
    study = studies.new_uid("study", seed)
    encoded = studies.LOSSLESS[syntax]
    app.send(study, {one.SOPInstanceUID: studies.to_bytes(one, encoded) for one in series})
    review = app.await_review(study)
    assert review.coverage.screened == 4
    assert [one.instance_number for one in review.findings[0].slices] == [2, 3]


def test_an_enhanced_object_is_screened_frame_by_frame(app: RunningApp, seed: int) -> None:
    volume = studies.enhanced_image(7, seed=seed)
    study = studies.new_uid("study", seed)
    app.send(study, {volume.SOPInstanceUID: studies.to_bytes(volume)})
    review = app.await_review(study)
    assert review.coverage.received_objects == 1
    assert review.coverage.screened == review.coverage.images == 7
    assert said(review)["models"][0]["slices"] == 7
