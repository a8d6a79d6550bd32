"""Records survive JSON, and a later version's JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicewatch import records
from slicewatch.messages import Progress, Retry, ReviewPlan
from slicewatch.record import Record
from slicewatch.records import (
    Detection,
    Finding,
    Geometry,
    Lane,
    LaneFlag,
    Outcome,
    Reason,
    SliceResult,
    StudyStatus,
)

_numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)
_boxes = st.tuples(_numbers, _numbers, _numbers, _numbers)
_detections = st.builds(Detection, label=st.text(max_size=8), score=_numbers, box=_boxes)
_geometries = st.builds(
    Geometry,
    position=st.none() | st.tuples(_numbers, _numbers, _numbers),
    spacing=st.none() | st.tuples(_numbers, _numbers),
)
_slices = st.builds(
    SliceResult,
    blob=st.text(max_size=20),
    content_sha256=st.text(max_size=8),
    outcome=st.sampled_from(Outcome),
    reason=st.none() | st.sampled_from(Reason),
    geometry=_geometries,
    times=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
    detections=st.lists(_detections, max_size=3).map(tuple),
    instance_number=st.none() | st.integers(),
)


@given(_slices)
def test_a_slice_result_survives_json(one: SliceResult) -> None:
    assert SliceResult.from_json(json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.parametrize(
    "record",
    [
        Progress(StudyStatus.RECEIVING, 1, 2, 3, 4, 5, lanes=("clinical",)),
        ReviewPlan("1", 1, 2, 3, 4, 5, Retry(1, 2.0), {"clinical": 1.0}, 3),
        LaneFlag(Lane.FORENSIC, 5, ("a",), "b"),
    ],
)
def test_a_record_survives_json(record: Record) -> None:
    assert type(record).from_json(json.loads(json.dumps(record.to_json()))) == record


def test_whole_numbers_become_floats_where_the_record_says_so() -> None:
    assert isinstance(
        Detection.from_json({"label": "a", "score": 1, "box": [0, 0, 1, 1]}).score, float
    )


def test_keys_of_a_later_version_are_ignored() -> None:
    data: dict[str, Any] = {"attempts": 1, "first_s": 2.0, "jitter": True}
    assert Retry.from_json(data) == Retry(1, 2.0)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(KeyError, match=r"Finding\.label"):
        Finding.from_json({"id": "x"})


def test_no_status_but_one_claims_that_nothing_was_flagged() -> None:
    assert [status for status in records.StudyStatus if "not_flagged" in status] == [
        StudyStatus.NOT_FLAGGED
    ]
