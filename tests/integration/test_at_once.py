"""Much at once: studies beside each other, and senders who know nothing of one another."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

from slicewatch import inventory
from slicewatch.records import StudyStatus
from tests import studies
from tests.integration.running_app import RunningApp


def test_studies_that_arrive_at_once_do_not_mix(app: RunningApp, seed: int) -> None:
    seeds = [1_000_000 + 100 * seed + n for n in range(8)]

    def send(one: int) -> str:
        study = studies.new_uid("study", one)
        # Every other study shows a lesion, from its own slice on.
        lesion = range(2 + one % 4, 8) if one % 2 else ()
        app.send(study, studies.study_bytes(8 + one % 3, seed=one, lesion=lesion), chunk=3)
        return study

    with ThreadPoolExecutor(len(seeds)) as pool:
        sent = list(pool.map(send, seeds))
    for one, study in zip(seeds, sent, strict=True):
        review = app.await_review(study)
        assert review.coverage.screened == 8 + one % 3
        assert all(name.startswith(study) for name in app.stored(study))
        found = [[one.instance_number for one in finding.slices] for finding in review.findings]
        assert found == ([list(range(2 + one % 4, 8))] if one % 2 else [])


def test_senders_who_close_too_early_and_send_on_lose_nothing(app: RunningApp, seed: int) -> None:
    objects = studies.study_bytes(32, seed=seed, lesion=range(10, 15))
    study = studies.new_uid("study", seed)
    every = list(objects.items())
    random.Random(seed).shuffle(every)

    def send(part: int) -> None:
        mine = every[part::4]
        for start in range(0, len(mine), 2):
            chunk = dict(mine[start : start + 2])
            assert app.store(chunk.values()).status_code == 200
            assert app.close(study, list(chunk)).status_code == 202

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(4)))
    review = app.wait(
        lambda: inventory.latest_review(app.storage, study),
        lambda found: found is not None and found.coverage.screened == len(objects),
        "no review covers all that was sent",
    )
    assert review is not None
    assert review.status is StudyStatus.FLAGGED
    assert review.coverage.missing == ()
    app.await_review(study, generation=review.generation)
    items = app.worklist(study)
    assert [one.state for one in items if one.generation == review.generation] == ["open"]
    assert {one.state for one in items if one.generation < review.generation} <= {"superseded"}
    app.decide(items[-1].id)
    app.await_end(study)
    assert inventory.latest_review(app.storage, study) == review, "no generation too many"
