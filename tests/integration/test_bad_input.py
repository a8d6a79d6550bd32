"""Hostile and broken input over HTTP: a clear error, the bytes kept, nothing else lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np
import pytest

from demo.scanner import multipart
from slicewatch import stow
from slicewatch.records import Reason, StudyStatus
from slicewatch.storage import INCOMING
from tests import studies
from tests.integration.archives import archive
from tests.integration.running_app import RunningApp

STORED, FAILED, OTHER_FAILURES = "00081199", "00081198", "0008119A"
FAILURE_REASON = "00081197"


def with_uid(keyword: str, value: str, *, seed: int) -> bytes:
    """A slice with this UID, in place of one of the same length."""
    placeholder = "9" * len(value)
    changed: dict[str, Any] = {keyword: placeholder}
    data = studies.to_bytes(studies.ct_image(seed=seed, **changed))
    assert placeholder.encode() in data
    return data.replace(placeholder.encode(), value.encode())


def failures(answer: httpx.Response) -> list[int]:
    """The Failure Reasons of a STOW-RS response."""
    module = answer.json()
    return [
        item[FAILURE_REASON]["Value"][0]
        for sequence in (FAILED, OTHER_FAILURES)
        for item in module.get(sequence, {}).get("Value", [])
    ]


def post(app: RunningApp, body: bytes, content_type: str) -> httpx.Response:
    headers = {"Content-Type": content_type} if content_type else {}
    return app.http.post("/api/dicomweb/studies", content=body, headers=headers)


def error_code(answer: httpx.Response) -> str:
    """The error's code; its cause and remedy must be told as well."""
    error = answer.json()["error"]
    assert error["message"]
    assert error["remedy"]
    return str(error["code"])


# --- STOW-RS: objects -----------------------------------------------------------------------------


def large_frame(seed: int) -> bytes:
    return studies.to_bytes(studies.ct_image(np.zeros((600, 600), np.int16), seed=seed))


BAD_OBJECTS: Mapping[str, tuple[Any, Reason]] = {
    "not DICOM": (lambda seed: b"GIF89a" + bytes([seed % 251]) * 500, Reason.NOT_DICOM),
    "empty part": (lambda seed: b"", Reason.NOT_DICOM),
    "truncated": (
        lambda seed: studies.to_bytes(studies.ct_image(seed=seed))[:-900],
        Reason.TRUNCATED,
    ),
    "study UID with a path": (
        lambda seed: with_uid("StudyInstanceUID", "1.2/../../etc/1", seed=seed),
        Reason.BAD_UID,
    ),
    "instance UID with a backslash": (
        lambda seed: with_uid("SOPInstanceUID", "1.2.3\\..\\4", seed=seed),
        Reason.BAD_UID,
    ),
    "series UID of 66 characters": (
        lambda seed: with_uid("SeriesInstanceUID", "1." + "2" * 64, seed=seed),
        Reason.BAD_UID,
    ),
    "frame over the bound": (large_frame, Reason.TOO_LARGE),
}


@pytest.mark.parametrize("name", BAD_OBJECTS)
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning")
@pytest.mark.filterwarnings("ignore:The value length:UserWarning")
def test_a_bad_object_is_refused_with_its_reason_and_the_good_one_beside_it_is_reviewed(
    app: RunningApp, seed: int, name: str
) -> None:
    make, reason = BAD_OBJECTS[name]
    bad = make(seed)
    good = studies.study_bytes(2, seed=seed)
    study = studies.new_uid("study", seed)
    answer = app.store([*good.values(), bad])
    assert answer.status_code == 202, answer.text
    assert failures(answer) == [stow.FAILURE_REASONS[reason]]
    assert len(answer.json()[STORED]["Value"]) == 2
    kept = app.quarantined(bad)
    assert kept is not None
    assert kept.startswith(reason.value)
    assert len(app.stored(study)) == 2
    assert app.close(study, list(good)).status_code == 202
    assert app.await_review(study).coverage.screened == 2


def test_a_request_of_which_nothing_can_be_stored_answers_409(app: RunningApp, seed: int) -> None:
    answer = app.store([b"no DICOM at all", b"nor this"])
    assert answer.status_code == 409
    assert failures(answer) == [stow.CANNOT_UNDERSTAND] * 2


def test_an_object_of_another_study_than_the_url_names_is_refused(
    app: RunningApp, seed: int
) -> None:
    (data,) = studies.study_bytes(1, seed=seed).values()
    answer = app.store([data], study="1.2.3.4")
    assert answer.status_code == 409
    assert failures(answer) == [stow.STUDY_MISMATCH]
    assert app.quarantined(data) is not None
    assert app.stored(studies.new_uid("study", seed)) == {}


def test_images_without_pixels_or_of_unknown_syntax_are_kept_and_never_read_as_not_flagged(
    app: RunningApp, seed: int
) -> None:
    empty = studies.ct_image(seed=seed, number=2)
    del empty.PixelData
    coded = studies.to_bytes(studies.ct_image(seed=seed, number=3), studies.LOSSLESS["jpeg-2000"])
    syntax, unknown = b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.4.99"
    assert syntax in coded
    objects = [
        *studies.study_bytes(1, seed=seed).values(),
        studies.to_bytes(empty),
        coded.replace(syntax, unknown),
    ]
    study = studies.new_uid("study", seed)
    answer = app.store(objects)
    assert answer.status_code == 200, answer.text
    assert app.close(study).status_code == 202
    review = app.await_review(study)
    assert {one.reason for one in review.coverage.rejected} == {
        Reason.NO_PIXEL_DATA,
        Reason.UNSUPPORTED_TRANSFER_SYNTAX,
    }
    assert sorted(app.stored(study).values()) == sorted(objects)
    assert review.status is StudyStatus.INCOMPLETE


# --- STOW-RS: requests ----------------------------------------------------------------------------


def test_another_media_type_answers_415_and_keeps_the_bytes(app: RunningApp, seed: int) -> None:
    body = b'{"study": %d}' % seed
    answer = post(app, body, "application/json")
    assert (answer.status_code, error_code(answer)) == (415, "wrong-media-type")
    assert app.quarantined(body) is not None
    json_type = 'multipart/related; type="application/dicom+json"; boundary=x'
    assert post(app, body, json_type).status_code == 415


def test_an_empty_body_answers_400(app: RunningApp) -> None:
    answer = post(app, b"", 'multipart/related; type="application/dicom"; boundary=x')
    assert (answer.status_code, error_code(answer)) == (400, "empty-body")


@pytest.mark.parametrize(
    "content_type",
    [
        'multipart/related; type="application/dicom"',
        'multipart/related; type="application/dicom"; boundary=another',
    ],
    ids=["no boundary", "another boundary"],
)
def test_a_wrong_boundary_answers_400_and_keeps_the_bytes(
    app: RunningApp, seed: int, content_type: str
) -> None:
    _, body = multipart(iter(studies.study_bytes(1, seed=seed).values()))
    answer = post(app, body, content_type)
    assert (answer.status_code, error_code(answer)) == (400, "bad-multipart")
    assert app.quarantined(body) is not None


def test_a_body_over_the_bound_answers_413_and_names_the_setting(app: RunningApp) -> None:
    answer = app.store([bytes(9 << 20)])
    assert (answer.status_code, error_code(answer)) == (413, "too-large")
    assert "SLICEWATCH_MAX_REQUEST_BYTES" in answer.json()["error"]["remedy"]


def test_an_unknown_study_answers_404(app: RunningApp) -> None:
    for answer in (app.http.get("/api/studies/1.2.3.4.5"), app.close("1.2.3.4.5")):
        assert (answer.status_code, error_code(answer)) == (404, "unknown-study")


@pytest.mark.parametrize("study", ["1.2.3a", "..%2F..%2Fetc", "1" * 65, "%00", "1.2.3%0d%0aX: y"])
def test_a_study_that_is_no_uid_is_refused(app: RunningApp, study: str) -> None:
    for answer in (
        app.http.get(f"/api/studies/{study}"),
        app.http.post(f"/api/studies/{study}/close"),
        app.http.post(f"/api/dicomweb/studies/{study}", content=b"x"),
    ):
        assert answer.status_code in (400, 404), answer.text


def test_a_malformed_close_answers_400_and_closes_nothing(app: RunningApp, seed: int) -> None:
    study = studies.new_uid("study", seed)
    assert app.store(studies.study_bytes(2, seed=seed).values()).status_code == 200
    for body in (b"{", b"[]", b'{"instances": "1.2"}', b'{"instances": ["../1"]}', b'{"x": 1}'):
        answer = app.http.post(f"/api/studies/{study}/close", content=body)
        assert (answer.status_code, error_code(answer)) == (400, "bad-body")
    assert app.progress(study).get("closed") in (None, False)


# --- archives -------------------------------------------------------------------------------------


def upload(app: RunningApp, data: bytes, content_type: str = "application/zip") -> httpx.Response:
    return app.http.post("/api/studies", content=data, headers={"Content-Type": content_type})


def test_an_archive_is_reviewed_without_its_hostile_entries(app: RunningApp, seed: int) -> None:
    good = list(studies.study_bytes(4, seed=seed, lesion=(2, 3)).values())
    others = list(studies.study_bytes(3, seed=seed + 5_000_000).values())
    nested = archive({"inner.dcm": good[0]})
    hostile = {
        "../../escape.dcm": others[0],
        "/absolute.dcm": others[1],
        "C:\\windows.dcm": others[2],
        "link.dcm": b"/etc/passwd",
        "nested.zip": nested,
    }
    entries = {f"study/{n}.dcm": data for n, data in enumerate(good)} | hostile
    answer = upload(app, archive(entries, links=("link.dcm",)))
    assert answer.status_code == 202, answer.text
    report = answer.json()
    assert [one["objects"] for one in report["studies"]] == [4]
    assert [one["entry"] for one in report["rejected"]] == [5, 6, 7, 8, 9]
    assert {one["reason"] for one in report["rejected"]} == {Reason.REFUSED_ENTRY.value}
    assert [data for data in hostile.values() if app.quarantined(data) is None] == []
    assert app.stored(studies.new_uid("study", seed + 5_000_000)) == {}
    study = studies.new_uid("study", seed)
    assert app.close(study).status_code == 202
    assert app.await_review(study).status is StudyStatus.FLAGGED


def test_an_archive_as_the_file_of_a_form_is_taken(app: RunningApp, seed: int) -> None:
    data = archive(studies.study_bytes(2, seed=seed))
    answer = app.http.post("/api/studies", files={"file": ("study.zip", data, "application/zip")})
    assert answer.status_code == 200, answer.text
    assert answer.json()["studies"][0]["objects"] == 2


def test_a_bomb_is_refused_as_a_whole_and_kept(app: RunningApp, seed: int) -> None:
    (good,) = studies.study_bytes(1, seed=seed).values()
    bomb = archive({"good.dcm": good, "bomb.dcm": bytes(100 << 20)})
    answer = upload(app, bomb)
    assert (answer.status_code, error_code(answer)) == (413, "archive-too-large")
    assert app.quarantined(bomb) is not None
    assert app.stored(studies.new_uid("study", seed)) == {}


def test_what_is_no_archive_is_refused_and_kept(app: RunningApp, seed: int) -> None:
    whole = archive(studies.study_bytes(2, seed=seed))
    for data in (b"no archive at all %d" % seed, whole[: len(whole) // 2]):
        answer = upload(app, data)
        assert (answer.status_code, error_code(answer)) == (400, "bad-archive")
        assert app.quarantined(data) is not None
    assert upload(app, b"").status_code == 400
    assert upload(app, whole, "text/plain").status_code == 415
    assert app.quarantined(whole) is not None


def test_refusals_leave_nothing_outside_the_studies_that_were_sent(app: RunningApp) -> None:
    odd = [
        blob.name
        for blob in app.storage.listing(INCOMING)
        if blob.name.count("/") != 2 or ".." in blob.name or "\\" in blob.name
    ]
    assert odd == []
