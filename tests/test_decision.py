"""Decisions: what a reader says is checked against the review and the images, and comes back."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicewatch import decision
from slicewatch.decision import BadDecision, Decision, Verdict

KNOWN = {"a", "b"}


def sizes(uid: str) -> tuple[int, int, int] | None:
    """Rows, columns, frames."""
    return (100, 200, 3) if uid == "1.2" else None


def read(**body: Any) -> Decision:
    return decision.read(body, KNOWN, sizes)


def box(*edges: Any, uid: Any = "1.2", frame: Any = 1) -> dict[str, Any]:
    return {"sop_instance_uid": uid, "frame": frame, "box": list(edges)}


def added(*boxes: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    return [{"label": "mass", "boxes": list(boxes), **more}]


def code(**body: Any) -> str:
    with pytest.raises(BadDecision) as refused:
        read(**body)
    assert str(refused.value)
    return refused.value.code


def test_a_decision_comes_back_as_it_was_stored() -> None:
    said = read(
        findings={
            "a": {"verdict": "changed", "label": "vessel", "boxes": [box(1, 2, 3, 4)]},
            "b": "confirmed",
        },
        additions=added(box(0, 0, 200, 100, frame=3), comment="<b>here</b>"),
        comment="two & more",
    )
    text = json.dumps(said.to_json())
    assert decision.stored(json.loads(text)) == said
    assert json.loads(text)["additions"][0]["id"] == "added-1"
    assert said.additions[0].comment == "<b>here</b>", "text stays text"


def test_decisions_of_the_older_form_are_read() -> None:
    old = {"verdict": "changed", "findings": {"a": "rejected"}, "comment": "x"}
    assert decision.stored(old).findings["a"].verdict is Verdict.REJECTED


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        ({"findings": {"a": "confirmed", "b": "confirmed"}}, "confirmed"),
        ({"findings": {"a": "rejected"}}, "rejected"),
        ({"findings": {"a": "rejected", "b": "confirmed"}}, "changed"),
        ({"findings": {"a": "confirmed"}, "additions": added(box(1, 1, 2, 2))}, "changed"),
        ({"additions": added(box(1, 1, 2, 2))}, "changed"),
        ({"verdict": "rejected"}, "rejected"),
    ],
)
def test_the_verdict_is_said_or_follows_from_the_findings(
    body: dict[str, Any], verdict: str
) -> None:
    assert read(**body).verdict == verdict


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"verdict": "perhaps"},
        {"verdict": ["confirmed"]},
        {"verdict": "confirmed", "findings": []},
        {"verdict": "confirmed", "findings": {"a": "rejected", "b": "rejected"}},
        {"verdict": "rejected", "findings": {"a": "rejected", "b": "confirmed"}},
        {"verdict": "rejected", "additions": added(box(1, 1, 2, 2))},
        {"verdict": "confirmed", "findings": {"a": "perhaps"}},
        {"verdict": "confirmed", "findings": {"a": {}}},
        {"findings": {"a": {"verdict": "changed", "label": ""}}},
        {"findings": {"a": {"verdict": "changed", "label": "x" * 65}}},
        {"findings": {"a": {"verdict": "changed", "boxes": {}}}},
        {"verdict": "confirmed", "additions": {}},
        {"verdict": "confirmed", "additions": [1]},
        {"verdict": "confirmed", "additions": added()},
        {"verdict": "confirmed", "additions": added(box(1, 1, 2, 2), label=None)},
        {"verdict": "confirmed", "additions": added(box(1, 1, 2))},
        {"verdict": "confirmed", "additions": added(box(1, 1, 2, "2"))},
        {"verdict": "confirmed", "additions": added(box(1, 1, 2, True))},
        {"verdict": "confirmed", "additions": added(box(1, 1, 2, float("nan")))},
        {"verdict": "confirmed", "additions": added(box(1, 1, 2, 10**400))},
        {"verdict": "confirmed", "additions": added(box(1, 1, 2, 2, frame="1"))},
        {"verdict": "confirmed", "additions": added(box(1, 1, 2, 2, uid="../x"))},
        {"verdict": "confirmed", "comment": "\ud800"},
        {"verdict": "confirmed", "comment": 5},
        {"verdict": "confirmed", "findigns": {"a": "rejected"}},
        {"verdict": "confirmed", "reason": "as of a correction"},
        {"findings": {"a": {"verdict": "rejected", "coment": "vessel"}}},
        {"verdict": "confirmed", "additions": added(box(1, 1, 2, 2), verdict="rejected")},
    ],
)
def test_a_malformed_decision_is_refused(body: dict[str, Any]) -> None:
    assert code(**body) == "bad-decision"


@pytest.mark.parametrize(
    "one",
    [
        box(-1, 0, 5, 5),
        box(0, 0, 201, 100),
        box(0, 0, 200, 100.5),
        box(5, 5, 5, 9),
        box(9, 5, 5, 9),
        box(1, 1, 2, 2, frame=0),
        box(1, 1, 2, 2, frame=4),
        box(1, 1, 2, 2, uid="1.3"),
    ],
)
def test_a_box_that_is_not_on_its_frame_is_refused(one: dict[str, Any]) -> None:
    assert code(additions=added(one)) == "box-outside"
    assert code(findings={"a": {"verdict": "changed", "boxes": [one]}}) == "box-outside"


def test_other_findings_and_oversized_words_are_refused_by_name() -> None:
    assert code(findings={"c": "confirmed"}) == "unknown-finding"
    long = "x" * (decision.MAX_COMMENT + 1)
    assert code(verdict="confirmed", comment=long) == "comment-too-long"
    assert code(findings={"a": {"verdict": "changed", "comment": long}}) == "comment-too-long"
    assert code(additions=added(box(1, 1, 2, 2), comment=long)) == "comment-too-long"
    assert code(additions=added(*[box(1, 1, 2, 2)] * 3000)) == "decision-too-large"
    comment = "\u2603" * 4000
    many = [{"label": "x", "boxes": [box(1, 1, 2, 2)], "comment": comment}] * 8
    assert code(additions=many) == "decision-too-large", "as it is stored"


def test_an_instance_is_looked_up_once() -> None:
    asked: list[str] = []

    def counting(uid: str) -> tuple[int, int, int]:
        asked.append(uid)
        return 10, 10, 1

    decision.read({"additions": added(*[box(1, 1, 2, 2)] * 5)}, KNOWN, counting)
    assert asked == ["1.2"]


@given(
    st.dictionaries(
        st.sampled_from(["verdict", "findings", "additions", "comment"]),
        st.recursive(
            st.none() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["a", "label", "boxes", "box", "frame", "verdict"]), inner
                )
            ),
            max_leaves=8,
        ),
    )
)
def test_no_body_breaks_the_reader(body: dict[str, Any]) -> None:
    try:
        said = decision.read(body, KNOWN, sizes)
    except BadDecision:
        return
    assert decision.stored(said.to_json()) == said


# --- two readers --------------------------------------------------------------------------------


def test_readers_agree_by_verdicts_and_labels_and_not_by_words_or_edges() -> None:
    one = read(findings={"a": "confirmed"}, additions=added(box(1, 1, 2, 2)), comment="clear")
    same = read(findings={"a": "confirmed"}, additions=added(box(1, 1, 3, 3), label="Mass"))
    assert one.agrees_with(same)
    for other in (
        read(findings={"a": "confirmed"}),
        read(findings={"a": "rejected"}, additions=added(box(1, 1, 2, 2))),
        read(findings={"a": "confirmed"}, additions=added(box(1, 1, 2, 2), label="cyst")),
        dataclasses.replace(one, verdict=Verdict.CONFIRMED),
    ):
        assert not one.agrees_with(other)
        assert not other.agrees_with(one)
