"""What senders say at the close, and that an edge agent's word makes nothing look screened."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicewatch import closings, inventory
from slicewatch.records import (
    EdgeDetection,
    EdgeScreening,
    Outcome,
    StudyStatus,
    Whereabouts,
)
from slicewatch.review import describe
from slicewatch.storage import Storage
from tests.slice_results import axial_series
from tests.test_review import review


@pytest.fixture
def study() -> str:
    return f"2.25.{uuid.uuid4().int}"


def screening(*instances: str, at: Whereabouts = Whereabouts.HELD, **more: Any) -> EdgeScreening:
    values: dict[str, Any] = {"model": "m@1", "model_sha256": "ab" * 32, "threshold": 0.4}
    return EdgeScreening(Outcome.SCREENED, at, instances, **values | more)


def test_what_was_screened_at_the_edge_is_expected_and_kept_as_it_was_said(
    storage: Storage, study: str
) -> None:
    seen = EdgeDetection("1.1", 2, 0.75)
    said = screening("1.1", "1.2", at=Whereabouts.SENT, detections=(seen,))
    closings.close_study(storage, study, ["1.1"], [said])
    assert closings.expected_instances(storage, study) == ("1.1", "1.2")
    assert closings.screened_at_edge(storage, study) == (said,)


def test_of_an_instance_the_last_word_counts_and_every_instance_stays_expected(
    storage: Storage, study: str
) -> None:
    closings.close_study(storage, study, None, [screening("1.1", "1.2")])
    closings.close_study(storage, study, ["1.3"], [screening("1.2", at=Whereabouts.SENT)])
    closings.close_study(storage, study, None)
    assert closings.awaited_instances(storage, study) == ("1.2", "1.3"), "not what is held"
    assert closings.expected_instances(storage, study) == ("1.1", "1.2", "1.3")
    found = {one.whereabouts: one.instances for one in closings.screened_at_edge(storage, study)}
    assert found == {Whereabouts.HELD: ("1.1",), Whereabouts.SENT: ("1.2",)}


def test_a_review_that_does_not_know_the_statement_does_not_cover_the_study(
    storage: Storage, study: str
) -> None:
    closings.close_study(storage, study, [])
    before = inventory.digest((), ())
    assert inventory.covers(storage, study, before)
    said = screening("1.1", at=Whereabouts.SENT)
    closings.close_study(storage, study, ["1.1"], [said])
    assert not inventory.covers(storage, study, inventory.digest((), ("1.1",)))
    assert inventory.covers(storage, study, inventory.digest((), ("1.1",), [said]))


@pytest.mark.parametrize("screened_here", [0, 6])
def test_a_study_with_slices_held_at_the_edge_is_incomplete_whatever_the_agent_says(
    screened_here: int,
) -> None:
    said = screening("9.1", "9.2")
    made = review(axial_series(screened_here), missing=("9.1", "9.2"), screened_at_edge=(said,))
    assert made.status is StudyStatus.INCOMPLETE
    assert made.coverage.screened == screened_here
    assert made.coverage.held_at_edge == made.coverage.missing == ("9.1", "9.2")
    assert made.coverage.screened_at_edge == (said,)
    text = describe(made)
    assert "2 of them held at the edge, and not looked at here" in text
    assert "at the edge: 2 screened by m@1 abababababab, 0 with detections; held" in text


def test_what_was_sent_is_not_held_and_what_the_agent_did_not_mention_is_only_missing() -> None:
    slices = axial_series(6)
    sent = screening(*(one.sop_instance_uid for one in slices), at=Whereabouts.SENT)
    assert review(slices, screened_at_edge=(sent,)).status is StudyStatus.NOT_FLAGGED
    lost = review(slices, missing=("9.1",), screened_at_edge=(sent,))
    assert lost.status is StudyStatus.INCOMPLETE
    assert lost.coverage.held_at_edge == ()
    claimed = screening(slices[0].sop_instance_uid)
    assert review(slices, screened_at_edge=(claimed,)).coverage.held_at_edge == ()


GOOD = {"outcome": "screened", "whereabouts": "later", "instances": ["1.1"]}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"outcome": "flagged"}, "flagged"),
        ({"whereabouts": "lost"}, "lost"),
        ({"instances": ["../1"]}, r"instances\[0\]` is not a UID"),
        ({"instances": "1.1"}, "instances` is not a list"),
        ({"model": "x" * 201}, "model"),
        ({"model": "a\nb"}, "model"),
        ({"threshold": float("nan")}, "threshold"),
        ({"note": "x"}, "keys of"),
        ({"detections": [{"sop_instance_uid": "1.2", "count": 1}]}, "none of the group's"),
        ({"detections": [{"sop_instance_uid": "1.1", "count": 0}]}, "count"),
        ({"detections": [{"sop_instance_uid": "1.1", "count": 1, "score": 2}]}, "score"),
        ({"detections": [{}, {}]}, "detections"),
    ],
)
def test_a_bad_statement_is_told_with_its_place(change: dict[str, Any], told: str) -> None:
    closings.read_statement([GOOD])
    with pytest.raises(closings.BadClosing, match=told):
        closings.read_statement([GOOD | change])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*GOOD, "detections", "model"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(JSON)
def test_any_json_is_a_statement_or_a_bad_one(given: Any) -> None:
    try:
        closings.read_statement(given)
    except closings.BadClosing:
        return
    assert isinstance(given, list)
