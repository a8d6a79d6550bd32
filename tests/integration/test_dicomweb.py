"""DICOMweb over HTTP: a client that nobody here wrote finds, fetches and works what it stored."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pydicom
from dicomweb_client import DICOMwebClient
from PIL import Image

from tests import studies
from tests.integration.running_app import RunningApp

TRANSACTION = "2.25.314159265358979"


def test_a_study_is_stored_found_retrieved_reviewed_and_its_workitem_completed(
    app: RunningApp, seed: int
) -> None:
    web = DICOMwebClient(f"{app.stack.url}/api/dicomweb")
    series = studies.ct_series(12, seed=seed, lesion=range(5, 9), PatientName="Ümit^Test")
    for one in series:
        one.file_meta = pydicom.dcmread(io.BytesIO(studies.to_bytes(one))).file_meta
    study, series_uid, sop = (
        str(series[0][keyword].value)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    )
    web.store_instances(series)

    (found,) = web.search_for_studies(search_filters={"PatientID": f"GEN-{seed}"})
    assert found["0020000D"]["Value"] == [study]
    assert found["00201208"]["Value"] == [12]
    assert found["00100010"]["Value"] == [{"Alphabetic": "Ümit^Test"}]
    numbers = [
        one["00200013"]["Value"][0]
        for one in web.search_for_instances(study, series_uid, limit=5, get_remaining=True)
    ]
    assert numbers == list(range(1, 13))

    assert len(web.retrieve_series(study, series_uid)) == 12
    assert len(web.retrieve_study_metadata(study)) == 12
    (frame,) = web.retrieve_instance_frames(study, series_uid, sop, [1])
    assert bytes(frame) == series[0].PixelData
    picture = Image.open(
        io.BytesIO(
            web.retrieve_instance_rendered(
                study,
                series_uid,
                sop,
                media_types=("image/png",),
                params={"window": "40,400,linear", "viewport": "40,48"},
            )
        )
    )
    assert picture.size == (40, 48)
    assert np.asarray(picture).max() > 100

    app.close(study, [one.SOPInstanceUID for one in series])
    app.await_review(study)
    work_through(app, study)
    assert app.await_status(study, "reviewed")
    (item,) = app.worklist(study)
    said = {"verdict": "confirmed", "findings": {}, "additions": [], "comment": ""}
    assert item.decision == said


def work_through(app: RunningApp, study: str) -> None:
    """What a workstation does with the study's workitem, by UPS-RS."""
    base = "/api/dicomweb/workitems"
    (found,) = app.http.get(base, params={"0020000D": study}).raise_for_status().json()
    assert found["00741000"]["Value"] == ["SCHEDULED"]
    workitem = f"{base}/{found['00080018']['Value'][0]}"

    def one(tag: str, vr: str, value: Any) -> dict[str, Any]:
        return {tag: {"vr": vr, "Value": [value]}}

    lock = one("00081195", "UI", TRANSACTION)
    code = one("00080100", "SH", "CONFIRMED") | one("00080102", "SH", "99SLICEWATCH")
    told = one("00741216", "SQ", one("00404019", "SQ", code))
    headers = {"Content-Type": "application/dicom+json"}
    for method, path, body in (
        ("PUT", f"{workitem}/state", one("00741000", "CS", "IN PROGRESS")),
        ("POST", workitem, told),
        ("PUT", f"{workitem}/state", one("00741000", "CS", "COMPLETED")),
    ):
        answer = app.http.request(method, path, json=[body | lock], headers=headers)
        assert answer.status_code == 200, answer.text
        assert "Warning" not in answer.headers
    (done,) = app.http.get(workitem).json()
    assert done["00741000"]["Value"] == ["COMPLETED"]


def test_refusals_come_over_http_as_they_are(app: RunningApp) -> None:
    base = "/api/dicomweb"
    for path, status in (
        ("studies/1.2.3/metadata", 404),
        ("studies/1.2.3/series/x/instances", 400),
        ("studies?Nonsense=1", 400),
        ("studies/1.2.3/series/1.2.4/instances/1.2.5/frames/0", 404),
        ("workitems/1.2.3", 404),
    ):
        answer = app.http.get(f"{base}/{path}")
        assert answer.status_code == status
        assert set(answer.json()["error"]) == {"code", "message", "remedy"}
    assert app.http.get(f"{base}/studies", params={"PatientID": "nobody"}).status_code == 204
