"""The models that the project ships, at the thresholds they are shipped with."""

from __future__ import annotations

from pathlib import Path

from demo.scanner import find, send
from demo.stack import ROOT
from slicewatch.model_registry import Registry
from slicewatch.records import Review, StudyStatus
from tests.integration.running_app import RunningApp
from training.phantom import generate_study

MODELS = ROOT / "models"


def test_a_study_with_a_mass_is_flagged_and_its_clean_twin_is_not(tmp_path: Path) -> None:
    def review_of(app: RunningApp, *, lesions: bool) -> Review:
        folder = tmp_path / ("mass" if lesions else "clean")
        generate_study(folder, seed=7, lesions=lesions)
        ((study, objects),) = find(folder).items()
        assert send(app.http, objects) == []
        return app.await_review(study, seconds=120)

    with RunningApp(tmp_path, MODELS) as app:
        mass, clean = (review_of(app, lesions=lesions) for lesions in (True, False))
    assert mass.status is StudyStatus.FLAGGED
    assert clean.status is StudyStatus.NOT_FLAGGED
    assert clean.coverage.screened == clean.coverage.images == mass.coverage.screened
    shipped = {model.key: model.sha256 for model in Registry.load(MODELS).models}
    used = {f"{one.name}@{one.version}": one.sha256 for one in (*mass.models, *clean.models)}
    assert used
    assert used.items() <= shipped.items()
