"""Decided findings of the review queue become examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from slicewatch import feedback, inventory, worklist
from slicewatch import settings as app_settings
from slicewatch.dataset import Labelled
from slicewatch.decision import Addition, Decision, DrawnBox, FindingDecision, Verdict
from slicewatch.records import Coverage, Finding, FindingSlice, Lane, LaneFlag, Review, StudyStatus
from slicewatch.storage import INCOMING, Storage
from slicewatch.worklist import Item, Reader
from tests import studies
from tests.azurite import Azurite
from tests.datasets.inbox import (
    Inbox,
    configured,
    patient,
    reasons,
)
from tests.tiny_model import LABEL

# --- the review queue ---------------------------------------------------------------------------


READER = Reader("reader", "reader")


def reviewed_study(
    storage: Storage, seed: int, split: str, found: Mapping[str, Iterable[int]]
) -> tuple[Review, dict[int, str]]:
    """A study in ``incoming`` with its review: finding id → slices that it lies on."""
    blobs = {}
    for one in studies.ct_series(5, seed=seed):
        one.PatientID = patient(split, seed)
        blob = f"{one.StudyInstanceUID}/{one.SeriesInstanceUID}/{one.SOPInstanceUID}.dcm"
        storage.write(INCOMING, blob, studies.to_bytes(one))
        blobs[int(one.InstanceNumber)] = blob
    findings = tuple(
        Finding(
            name,
            "other" if name.startswith("other") else LABEL,
            0.9,
            0.9,
            studies.new_uid("series", seed, 1),
            tuple(
                FindingSlice(
                    blobs[n].rsplit("/")[-1].removesuffix(".dcm"),
                    1,
                    blobs[n],
                    0.9,
                    (20, 20, 40, 50),
                )
                for n in slices
            ),
            rules=("mass",),
        )
        for name, slices in found.items()
    )
    review = Review(
        studies.new_uid("study", seed),
        1,
        StudyStatus.FLAGGED,
        (LaneFlag(Lane.CLINICAL, 50, ("mass",), "a mass"),),
        Coverage(5, 5, 5),
        findings,
        (),
        (),
        "default",
        "",
        "",
    )
    inventory.write_review(storage, review)
    return review, blobs


def decide(storage: Storage, review: Review, verdict: str, **findings: str) -> Item:
    return said(storage, review, {"verdict": verdict, "findings": findings, "comment": ""})


def said(storage: Storage, review: Review, decision: dict[str, Any]) -> Item:
    study = review.study_instance_uid
    (item,) = (
        Item(
            f"{inventory.instance_id(study)}-1-clinical",
            study,
            1,
            Lane.CLINICAL,
            50,
            "a mass",
            ("mass",),
            "2024-03-05T10:00:00+00:00",
        ),
    )
    worklist.add(storage, item)
    worklist.claim(storage, item.id, READER)
    return worklist.decide(storage, item.id, READER, decision)


@pytest.fixture
def queue(
    azurite: Azurite, storage: Storage, inbox: Inbox, app: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Turns the feedback on for the test's data set, with these items alone."""

    def turn_on(*items: Item) -> None:
        config = configured(
            azurite,
            SLICEWATCH_TRAINING_FEEDBACK="on",
            SLICEWATCH_TRAINING_FEEDBACK_DATASET=inbox.name,
        )
        app.setattr(app_settings, "current", lambda: config)
        mine = {item.id for item in items}
        decided = feedback.decided
        app.setattr(
            feedback, "decided", lambda store: [one for one in decided(store) if one.id in mine]
        )

    return turn_on


def test_decided_findings_become_examples(
    inbox: Inbox, storage: Storage, seed: int, queue: Callable[..., None]
) -> None:
    one, _ = reviewed_study(storage, seed, "train", {"yes": (1, 2), "no": (3,), "open": (4,)})
    other, _ = reviewed_study(storage, seed + 50_000, "val", {"alone": (2,), "other-kind": (5,)})
    queue(
        decide(storage, one, "confirmed", yes="confirmed", no="rejected"),
        decide(storage, other, "confirmed", **{"alone": "confirmed", "other-kind": "confirmed"}),
    )
    manifest = inbox.prepared()
    assert manifest["status"] == "prepared", manifest["problems"]
    assert manifest["examples"] == {
        "train": {"positive": 2, "negative": 1},
        "val": {"positive": 1},
    }
    labels = [data for name, data in inbox.files().items() if name.startswith("labels/val")]
    assert labels[0].startswith(b"0 0.")
    # A finding of a class that the data set has not says nothing of those that it has.
    assert reasons(manifest) == ["nothing was drawn on its series"]


def test_without_the_setting_no_decision_becomes_an_example(
    inbox: Inbox, storage: Storage, seed: int, azurite: Azurite, app: pytest.MonkeyPatch
) -> None:
    review, _ = reviewed_study(storage, seed, "train", {"yes": (1,)})
    decide(storage, review, "confirmed")
    config = configured(azurite, SLICEWATCH_TRAINING_FEEDBACK_DATASET=inbox.name)
    app.setattr(app_settings, "current", lambda: config)
    assert inbox.post().status_code == 404


@pytest.mark.parametrize(
    ("verdict", "findings", "judged"),
    [
        ("rejected", {}, {"a": False, "b": False}),
        ("confirmed", {}, {}),  # which of the two is not said
        ("confirmed", {"a": "confirmed"}, {"a": True}),
        ("rejected", {"a": "confirmed"}, {"a": True, "b": False}),
        ("changed", {"a": "changed"}, {}),
    ],
)
def test_a_verdict_counts_for_the_findings_that_it_surely_means(
    storage: Storage, seed: int, verdict: str, findings: dict[str, str], judged: dict[str, bool]
) -> None:
    review, _ = reviewed_study(storage, seed, "train", {"a": (1,), "b": (2,)})
    item = decide(storage, review, verdict, **findings)
    assert feedback.verdicts(review, [item]) == judged


def test_what_a_reader_changed_and_drew_counts_as_they_drew_it(storage: Storage, seed: int) -> None:
    review, blobs = reviewed_study(storage, seed, "train", {"a": (1, 2), "b": (3,)})
    sop = {n: blob.rsplit("/")[-1].removesuffix(".dcm") for n, blob in blobs.items()}

    def drawn(n: int, *edges: float) -> DrawnBox:
        return DrawnBox(sop[n], 1, (edges[0], edges[1], edges[2], edges[3]))

    decision = Decision(
        Verdict.CHANGED,
        {
            "a": FindingDecision(Verdict.CHANGED, boxes=(drawn(1, 1, 2, 3, 4),)),
            "b": FindingDecision(Verdict.CHANGED, label="cyst"),
        },
        (Addition("added-1", LABEL, (drawn(4, 5, 6, 7, 8), drawn(1, 9, 9, 11, 11))),),
    )
    item = said(storage, review, decision.to_json())
    _, boxes = feedback.gather(storage, [item.id])
    assert boxes == {
        (sop[1], 1): [Labelled(LABEL, (1, 2, 3, 4)), Labelled(LABEL, (9, 9, 11, 11))],
        (sop[3], 1): [Labelled("cyst", (20, 20, 40, 50))],
        (sop[4], 1): [Labelled(LABEL, (5, 6, 7, 8))],
    }, "slice 2 had a box of the finding and has none now: what it shows is not known"


def test_readers_who_differ_judge_nothing(storage: Storage, seed: int) -> None:
    review, _ = reviewed_study(storage, seed, "train", {"a": (1,)})
    item = decide(storage, review, "confirmed")
    other = Item.from_json({**item.to_json(), "decision": {"verdict": "rejected"}})
    assert feedback.verdicts(review, [item]) == {"a": True}
    assert feedback.verdicts(review, [item, other]) == {}


def test_an_object_that_was_removed_is_a_reject(
    inbox: Inbox, storage: Storage, seed: int, queue: Callable[..., None]
) -> None:
    review, blobs = reviewed_study(storage, seed, "train", {"a": (1, 2)})
    queue(decide(storage, review, "confirmed"))
    storage.delete(INCOMING, blobs[1])
    manifest = inbox.prepared()
    assert manifest["examples"] == {"train": {"positive": 1}}
    assert reasons(manifest) == ["it was removed before it was read"]
