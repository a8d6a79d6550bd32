"""Results beside the originals and in a PACS, by clients and a receiver that nobody here wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dicomweb_client import DICOMwebClient

from slicewatch.reporting import uids
from tests import studies
from tests.integration.running_app import RunningApp, running_app
from tests.reporting import orthanc
from tests.reporting.orthanc import Orthanc

pytestmark = pytest.mark.skipif(not orthanc.IS_INSTALLED, reason=orthanc.REASON)


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


@pytest.fixture(scope="module")
def reporting(
    tmp_path_factory: pytest.TempPathFactory, models: Path, pacs: Orthanc
) -> Iterator[RunningApp]:
    """An app that sends its results to the PACS."""
    settings = {
        "SLICEWATCH_PACS_URL": pacs.url,
        "SLICEWATCH_RETRY_ATTEMPTS": "3",
        "SLICEWATCH_RETRY_FIRST_SECONDS": "0.2",
    }
    yield from running_app(tmp_path_factory.mktemp("app"), models, settings)


def delivered(app: RunningApp, study: str, names: set[str]) -> dict[str, dict[str, Any]]:
    """Wait until these results were sent; what the study's status says of them, by name."""
    found = app.wait(
        lambda: (app.status(study)["report"] or {}).get("objects", []),
        lambda objects: (
            {one["name"] for one in objects if (one["delivery"] or {}).get("state") == "sent"}
            == names
        ),
        "the results were never sent",
    )
    return {one["name"]: one for one in found}


def test_a_flagged_study_is_reported_to_the_pacs_and_again_when_it_is_decided_and_corrected(
    reporting: RunningApp, pacs: Orthanc, seed: int
) -> None:
    app = reporting
    objects = studies.study_bytes(8, seed=seed, lesion=range(3, 6))
    study = studies.new_uid("study", seed)
    app.send(study, objects)
    review = app.await_review(study)
    results = delivered(app, study, {"sr.dcm", "pr-1.dcm"})
    in_pacs = {one["00080018"]["Value"][0] for one in pacs.instances(study)}
    assert in_pacs == {one["instance"] for one in results.values()}

    web = DICOMwebClient(f"{app.stack.url}/api/dicomweb")
    (found,) = web.search_for_studies(search_filters={"StudyInstanceUID": study})
    assert found["00080061"]["Value"] == ["CT", "PR", "SR"]
    assert found["00201208"]["Value"] == [10]
    series = web.search_for_series(study, search_filters={"Modality": "SR"})
    assert [one["0020000E"]["Value"] for one in series] == [
        [uids.series_uid(study, uids.Kind.REPORT)]
    ]
    assert len(web.retrieve_study(study)) == 10
    assert len(web.retrieve_study_metadata(study)) == 10
    report = results["sr.dcm"]
    retrieved = web.retrieve_instance(study, report["series"], report["instance"])
    assert retrieved.CompletionFlag == "PARTIAL"
    (state,) = web.retrieve_series(study, results["pr-1.dcm"]["series"])
    assert len(state.GraphicAnnotationSequence) == sum(
        len(finding.slices) for finding in review.findings
    )

    # What the PACS sends back is no arrival, so the study is not reviewed anew.
    answer = app.store([pacs.file(study, report["series"], report["instance"])])
    assert answer.status_code == 200
    assert app.status(study)["progress"]["generation"] == 1

    (item,) = app.worklist(study)
    app.decide(item.id, verdict="rejected")
    delivered(app, study, {"sr.dcm", "pr-1.dcm", "sr-decided-1.dcm"})
    correction = app.act(item.id, "correction", verdict="confirmed", reason="seen again")
    assert correction.status_code == 200, correction.text
    last = delivered(app, study, {"sr.dcm", "pr-1.dcm", "sr-decided-1.dcm", "sr-decided-2.dcm"})
    corrected = web.retrieve_instance(
        study, last["sr-decided-2.dcm"]["series"], last["sr-decided-2.dcm"]["instance"]
    )
    assert corrected.CompletionFlag == "COMPLETE"
    assert len(pacs.instances(study)) == 4
    assert app.status(study)["progress"]["generation"] == 1


def test_a_pacs_that_is_away_delays_neither_the_flag_nor_its_decision(
    models: Path, tmp_path: Path, seed: int
) -> None:
    away = {
        "SLICEWATCH_PACS_URL": "http://127.0.0.1:9/dicom-web",
        "SLICEWATCH_RETRY_ATTEMPTS": "2",
        "SLICEWATCH_RETRY_FIRST_SECONDS": "30",
    }
    with RunningApp(tmp_path, models, away) as app:
        objects = studies.study_bytes(4, seed=seed, lesion=[2, 3])
        study = studies.new_uid("study", seed)
        app.send(study, objects)
        app.await_review(study)
        told = app.wait(
            lambda: (app.status(study)["report"] or {}).get("objects", []),
            lambda objects: objects and all(one["delivery"] for one in objects),
            "the status never said that the PACS is away",
        )
        assert {one["delivery"]["state"] for one in told} == {"waiting"}
        assert all("does not answer" in one["delivery"]["reason"] for one in told)
        (item,) = app.worklist(study)
        app.decide(item.id)
        app.await_status(study, "reviewed", seconds=20)
        app.await_end(study, seconds=20)
