"""Processes that die in the middle of a study: it ends with the review it would have had."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from slicewatch import inventory, unfinished
from slicewatch.records import SliceResult, StudyStatus
from slicewatch.storage import REVIEWS
from tests import studies
from tests.integration.running_app import RunningApp, running_app, said

SLICES = 40
LESION = range(15, 21)


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[RunningApp]:
    """An app of its own, which the tests here damage; its batches are small, to have many.

    Its senders close their studies; while workers start again, on a slow machine for longer than
    the tests' quiet period, nothing arrives, and that must not end a study before its sender does.
    """
    yield from running_app(
        tmp_path_factory.mktemp("fragile"),
        models,
        {
            "SLICEWATCH_BATCH_SIZE": "2",
            "SLICEWATCH_MAX_IN_FLIGHT": "2",
            "SLICEWATCH_QUIET_SECONDS": "90",
            "SLICEWATCH_BATCH_WAIT_SECONDS": "0",
            "FUNCTIONS_WORKER_PROCESS_COUNT": "2",
        },
    )


@pytest.fixture
def objects(seed: int) -> dict[str, bytes]:
    return studies.study_bytes(SLICES, seed=seed, lesion=LESION, others=True)


@pytest.fixture
def study(seed: int) -> str:
    return studies.new_uid("study", seed)


def undisturbed(app: RunningApp, study: str, objects: Mapping[str, bytes]) -> dict[str, Any]:
    """What the review of the study says where nothing happens to it."""
    app.send(study, objects)
    review = app.await_review(study)
    assert review.status is StudyStatus.FLAGGED
    assert review.coverage.screened == SLICES
    return said(review)


def await_screened(app: RunningApp, study: str, more_than: int) -> int:
    """Wait until more than so many slices are screened, and not all of them."""
    progress = app.wait(
        lambda: app.progress(study),
        lambda progress: progress.get("screened", 0) > more_than,
        f"no more than {more_than} slices were screened",
        every=0.01,
    )
    assert progress["screened"] < SLICES, "the study was over before anything could happen to it"
    return int(progress["screened"])


def kill_workers(app: RunningApp) -> None:
    """Kill all that serve now, and wait until one serves that did not."""
    killed = set(app.worker_pids())
    for pid in killed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    app.wait(
        lambda: set(app.worker_pids()),
        lambda pids: pids and not pids & killed,
        "no new worker started",
    )


def screened_batches(app: RunningApp, study: str) -> dict[str, str]:
    """The results that are stored, with their ETags."""
    listing = app.storage.listing(REVIEWS, f"{study}/slices/")
    return {blob.name: blob.etag for blob in listing if blob.name.count(".") > study.count(".") + 1}


def screened_objects(app: RunningApp, batches: Iterable[str]) -> list[str]:
    """The objects that these stored results are of, each as often as it was screened."""
    return [
        SliceResult.from_json(item).blob
        for batch in batches
        for item in json.loads(app.storage.read(REVIEWS, batch))
    ]


def test_killed_workers_change_nothing_in_the_review(
    app: RunningApp, fragile: RunningApp, study: str, objects: dict[str, bytes]
) -> None:
    expected = undisturbed(app, study, objects)
    sender = fragile.send_with_retries(study, objects)  # its requests are on the workers, too
    handed_out_again = re.compile(r"'screen_slices' .* lost its worker process and is handed out")
    before, screened = fragile.log, 0
    while not handed_out_again.search(fragile.log.removeprefix(before)):
        screened = await_screened(fragile, study, screened)
        kill_workers(fragile)
    sender.join(60)
    assert not sender.is_alive(), "the sender could not send all"
    assert said(fragile.await_review(study)) == expected


def test_a_killed_host_goes_on_after_its_restart_with_what_is_not_screened_yet(
    app: RunningApp, fragile: RunningApp, study: str, objects: dict[str, bytes]
) -> None:
    expected = undisturbed(app, study, objects)
    assert fragile.store(objects.values()).status_code == 200
    assert fragile.close(study, list(objects)).status_code == 202
    await_screened(fragile, study, 8)
    fragile.kill_host()
    done = screened_batches(fragile, study)
    assert len(done) >= 4
    assert inventory.latest_review(fragile.storage, study) is None
    assert unfinished.is_open(fragile.storage, study)

    fragile.stack.start_host()
    assert said(fragile.await_review(study)) == expected
    after = screened_batches(fragile, study)
    assert {name: after[name] for name in done} == done, "what was screened stays as it was"
    # A look between two arrivals may cut a batch short, so their number is not known beforehand.
    screened = screened_objects(fragile, after)
    assert len(set(screened)) == len(objects)
    assert len(screened) == len(objects), "nothing is screened twice"


def test_slices_that_a_dead_host_did_not_take_come_after_its_restart(
    app: RunningApp, fragile: RunningApp, study: str, objects: dict[str, bytes]
) -> None:
    expected = undisturbed(app, study, objects)
    sender = fragile.send_with_retries(study, objects)
    fragile.wait(
        lambda: len(inventory.received(fragile.storage, study)),
        lambda received: received >= 8,
        "nothing arrived",
        every=0.01,
    )
    fragile.kill_host()
    assert len(inventory.received(fragile.storage, study)) < len(objects)
    fragile.stack.start_host()
    sender.join(60)
    assert not sender.is_alive(), "the sender could not send all"
    assert said(fragile.await_review(study)) == expected


def test_a_host_killed_while_a_reader_is_awaited_takes_the_decision_after_its_restart(
    fragile: RunningApp, study: str, seed: int
) -> None:
    fragile.send(study, studies.study_bytes(6, seed=seed, lesion=(2, 3)))
    review = fragile.await_review(study)
    (item,) = fragile.worklist(study)
    assert fragile.act(item.id, "claim", reader="reader-1").status_code == 200
    fragile.kill_host()
    fragile.stack.start_host()
    answer = fragile.act(item.id, "decision", reader="reader-1", verdict="confirmed")
    assert answer.status_code == 200, answer.text
    fragile.await_status(study, "reviewed")
    fragile.await_end(study)
    assert inventory.latest_review(fragile.storage, study) == review, "no new generation"
    assert [one.state for one in fragile.worklist(study)] == ["decided"]
    assert len(fragile.messages(item.id)) == 1, "the lane is told once"
