"""Triage: what a policy may say, how it is refused, and that evidence only ever raises."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicewatch import settings
from slicewatch.issue_codes import ISSUES, SEVERITIES
from slicewatch.records import Finding, FindingSlice, IntegrityIssue, Lane, LaneFlag
from slicewatch.toml_lines import line_of
from slicewatch.triage import Policy, PolicyError, apply, load_policy, triage

DEFAULT = settings.Settings().policy
CT, DX = "1.2.1", "1.2.2"
MODALITIES = {CT: "CT", DX: "DX"}


def finding(
    score: float = 0.8,
    slices: int = 4,
    size: float | None = 20.0,
    *,
    label: str = "mass",
    series: str = CT,
    model: str = "m@1.0.0",
    number: int = 0,
) -> Finding:
    return Finding(
        id=f"{number}-{label}-{score}-{slices}-{size}-{series}-{model}",
        label=label,
        score=score,
        mean_score=score / 2,
        series_instance_uid=series,
        slices=tuple(
            FindingSlice(f"1.2.3.{n}", 1, f"b{n}", score, (0.0, 0.0, 9.0, 9.0))
            for n in range(slices)
        ),
        model=model,
        extent_mm=None if size is None else (size, size / 2, 99.0),
        planes=slices,
    )


def issue(code: str = "slice-gap", severity: str = "warning") -> IntegrityIssue:
    return IntegrityIssue(code, severity, "Something.", blobs=("a", "b"))


def policy(tmp_path: Path, text: str) -> Policy:
    path = tmp_path / "policy.toml"
    path.write_text(text, encoding="utf-8")
    return load_policy(path)


def rule(conditions: str, *, kind: str = "finding", priority: int = 50, name: str = "r") -> str:
    lane = "clinical" if kind == "finding" else "forensic"
    return (
        f'[[rule]]\nname = "{name}"\nlane = "{lane}"\npriority = {priority}\n'
        f"[rule.{kind}]\n{conditions}\n"
    )


def flags_of(tmp_path: Path, rules: str, *items: Finding | IntegrityIssue) -> tuple[LaneFlag, ...]:
    return apply(
        policy(tmp_path, f'name = "test"\n{rules}'),
        [item for item in items if isinstance(item, Finding)],
        [item for item in items if isinstance(item, IntegrityIssue)],
        MODALITIES,
    )


# --- conditions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conditions", "fits", "fits_not"),
    [
        ('label = "mass"', finding(), finding(label="cyst")),
        ('label = ["cyst", "m*"]', finding(), finding(label="node")),
        ('model = "m@1.*"', finding(), finding(model="m@2.0.0")),
        ('modality = ["CT", "MR"]', finding(), finding(series=DX)),
        ("min_score = 0.7", finding(0.7), finding(0.69)),
        ("min_mean_score = 0.4", finding(0.8), finding(0.7)),
        ("min_slices = 3", finding(slices=3), finding(slices=2)),
        ("min_size_mm = 20", finding(size=20.0), finding(size=19.9)),
    ],
)
def test_each_condition_of_a_finding(
    tmp_path: Path, conditions: str, fits: Finding, fits_not: Finding
) -> None:
    assert [flag.lane for flag in flags_of(tmp_path, rule(conditions), fits)] == [Lane.CLINICAL]
    assert flags_of(tmp_path, rule(conditions), fits_not) == ()


@pytest.mark.parametrize(
    ("conditions", "fits", "fits_not"),
    [
        ('code = "slice-gap"', issue(), issue("repeated-pixels")),
        ('code = ["slice-gap", "time-in-future"]', issue(), issue("repeated-pixels")),
        ('min_severity = "warning"', issue(severity="error"), issue(severity="info")),
        ('code = "slice-gap"\nmin_severity = "error"', issue(severity="error"), issue()),
    ],
)
def test_each_condition_of_an_integrity_issue(
    tmp_path: Path, conditions: str, fits: IntegrityIssue, fits_not: IntegrityIssue
) -> None:
    rules = rule(conditions, kind="integrity")
    assert [flag.lane for flag in flags_of(tmp_path, rules, fits)] == [Lane.FORENSIC]
    assert flags_of(tmp_path, rules, fits_not) == ()


def test_all_conditions_must_hold_for_one_finding(tmp_path: Path) -> None:
    rules = rule("min_score = 0.7\nmin_slices = 3")
    assert flags_of(tmp_path, rules, finding(0.9, slices=1), finding(0.5, slices=9)) == ()


def test_min_count_asks_for_several_findings(tmp_path: Path) -> None:
    rules = rule("min_score = 0.5\nmin_count = 2")
    assert flags_of(tmp_path, rules, finding()) == ()
    assert len(flags_of(tmp_path, rules, finding(), finding(number=1))) == 1


def test_a_size_that_nobody_knows_is_not_too_small(tmp_path: Path) -> None:
    assert len(flags_of(tmp_path, rule("min_size_mm = 50"), finding(size=None))) == 1


def test_repeats_of_one_position_are_one_slice(tmp_path: Path) -> None:
    dynamic = dataclasses.replace(finding(slices=8), planes=1)
    assert flags_of(tmp_path, rule("min_slices = 2"), dynamic) == ()


# --- flags ------------------------------------------------------------------------------------


def test_all_matching_rules_are_named_and_the_highest_priority_wins(tmp_path: Path) -> None:
    rules = "".join(
        rule(f"min_score = {bound}", priority=priority, name=name)
        for name, bound, priority in (("low", 0.1, 20), ("high", 0.7, 90), ("none", 0.95, 99))
    )
    (flag,) = flags_of(tmp_path, rules, finding(0.8))
    assert flag.priority == 90
    assert flag.rules == ("low", "high")


def test_a_forensic_flag_leaves_the_clinical_one_as_it_is(tmp_path: Path) -> None:
    rules = rule("", name="a") + rule("", kind="integrity", priority=99, name="b")
    alone = flags_of(tmp_path, rules, finding())
    both = flags_of(tmp_path, rules, finding(), issue())
    assert both[0] == alone[0]
    assert [flag.lane for flag in both] == [Lane.CLINICAL, Lane.FORENSIC]


def test_the_summary_names_the_best_finding_and_counts_the_others(tmp_path: Path) -> None:
    (flag,) = flags_of(tmp_path, rule(""), finding(0.5, number=1), finding(0.9))
    assert flag.summary == "mass 0.90 on 4 slices, 20 × 10 × 99 mm, and 1 more finding"


def test_each_finding_learns_which_rules_it_met(tmp_path: Path) -> None:
    rules = rule("min_slices = 2", name="a") + rule("min_score = 0.7", name="b")
    result = triage(
        policy(tmp_path, f'name = "test"\n{rules}'),
        [finding(0.9), finding(0.4), finding(0.4, slices=1)],
        [],
        MODALITIES,
    )
    assert result.rules_met == (("a", "b"), ("a",), ())


# --- the shipped policy -----------------------------------------------------------------------


def test_the_shipped_policy_suppresses_single_slice_noise_and_flags_what_neighbours_confirm() -> (
    None
):
    shipped = load_policy(DEFAULT)
    assert apply(shipped, [finding(0.45, slices=1)], [], MODALITIES) == ()
    (flag,) = apply(shipped, [finding(0.45, slices=2)], [], MODALITIES)
    assert (flag.lane, flag.priority) == (Lane.CLINICAL, 60)
    (flag,) = apply(shipped, [finding(0.85, slices=1)], [], MODALITIES)
    assert flag.rules == ("confident-finding",)


def test_the_shipped_policy_flags_a_radiograph_by_its_only_image() -> None:
    assert apply(load_policy(DEFAULT), [finding(0.45, slices=1, series=DX)], [], MODALITIES)


def test_the_shipped_policy_sends_errors_and_warnings_to_the_forensic_lane() -> None:
    shipped = load_policy(DEFAULT)
    priority = {
        severity: [flag.priority for flag in apply(shipped, [], [issue("x", severity)], {})]
        for severity in SEVERITIES
    }
    assert priority == {"info": [], "warning": [30], "error": [80]}


def test_the_policy_hash_is_that_of_the_file() -> None:
    assert load_policy(DEFAULT).sha256 == hashlib.sha256(DEFAULT.read_bytes()).hexdigest()


# --- refusals ---------------------------------------------------------------------------------

HEAD = 'name = "test"\n# a comment\n'


@pytest.mark.parametrize(
    ("text", "line", "key", "problem"),
    [
        ("name = ", 1, "", "is not TOML"),
        (HEAD + "rule = 3\n", 3, "rule", "1 to 100 tables"),
        (HEAD, 1, "rule", "is missing"),
        (HEAD + "rule = []\n", 3, "rule", "1 to 100 tables"),
        ('\nname = "Bad Name"\n' + rule(""), 2, "name", "lower case letters"),
        (rule(""), 1, "name", "is missing"),
        (HEAD + rule("") + '\n[extra]\na = "b"\n', 10, "extra", "is no key here"),
        (HEAD + rule("min_scroe = 0.5"), 8, "rule[1].finding.min_scroe", "there are label"),
        (HEAD + rule("min_score = 1.5"), 8, "rule[1].finding.min_score", "from 0 to 1, not 1.5"),
        (HEAD + rule("min_score = nan"), 8, "rule[1].finding.min_score", "a number from 0 to 1"),
        (HEAD + rule("min_score = true"), 8, "rule[1].finding.min_score", "a number from 0 to 1"),
        (HEAD + rule('min_score = "0.5"'), 8, "rule[1].finding.min_score", "a number"),
        (HEAD + rule("min_slices = 0"), 8, "rule[1].finding.min_slices", "whole number from 1"),
        (HEAD + rule("min_slices = 2.5"), 8, "rule[1].finding.min_slices", "whole number"),
        (HEAD + rule("label = []"), 8, "rule[1].finding.label", "or a list of them"),
        (HEAD + rule('modality = "ct scan"'), 8, "rule[1].finding.modality", "such as CT"),
        (HEAD + rule("", priority=0), 6, "rule[1].priority", "whole number from 1 to 100"),
        (HEAD + rule("", priority=101), 6, "rule[1].priority", "whole number from 1 to 100"),
        (HEAD + rule("") + rule(""), 10, "rule[2].name", "another rule is called 'r'"),
        (
            HEAD + rule('code = "slise-gap"', kind="integrity"),
            8,
            "rule[1].integrity.code",
            "one of compression-traces",
        ),
        (
            HEAD + rule('\nmin_severity = "fatal"', kind="integrity"),
            9,
            "rule[1].integrity.min_severity",
            "one of info, warning, error",
        ),
        (
            HEAD + rule('label = [\n  "mass",\n  # and\n  7,\n]'),
            8,
            "rule[1].finding.label",
            "or a list of them",
        ),
        (
            HEAD + '[[rule]]\nname = "a"\nlane = "surgical"\npriority = 5\n[rule.finding]\n',
            5,
            "rule[1].lane",
            "one of clinical, forensic",
        ),
        (
            HEAD + rule("") + '[[rule]]\nname = "b"\npriority = 5\n[rule.finding]\n',
            9,
            "rule[2].lane",
            "is missing",
        ),
        (
            HEAD + '[[rule]]\nname = "a"\nlane = "clinical"\npriority = 5\n',
            3,
            "rule[1]",
            "one of the tables 'finding' and 'integrity'",
        ),
        (
            HEAD + '[[rule]]\nname = "a"\nlane = "clinical"\npriority = 5\nfinding = 1\n',
            7,
            "rule[1].finding",
            "a table of conditions",
        ),
        (
            HEAD + rule("") + "[rule.integrity]\n",
            3,
            "rule[1]",
            "one of the tables 'finding' and 'integrity'",
        ),
    ],
)
def test_a_broken_policy_is_refused_by_file_line_and_key(
    tmp_path: Path, text: str, line: int, key: str, problem: str
) -> None:
    with pytest.raises(PolicyError) as caught:
        policy(tmp_path, text)
    error = caught.value
    assert (error.line, error.key) == (line, key)
    assert problem in str(error)
    assert str(error).startswith(f"{tmp_path / 'policy.toml'}, line {line}: ")


def test_a_policy_that_is_no_utf_8_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(b'name = "x"\n# \xff\n')
    with pytest.raises(PolicyError, match="line 2: is not UTF-8"):
        load_policy(path)


def test_a_missing_policy_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"none\.toml: cannot be read: No such file"):
        load_policy(tmp_path / "none.toml")


def test_the_line_is_found_behind_strings_and_arrays_over_several_lines() -> None:
    text = 'a = """\nb = 1\n[[rule]]\n"""\nc = [\n  1,\n]\n\n# d = 0\nd = 2\n[e]\n"f g".h = 1\n'
    assert line_of(text, ("a",)) == 1
    assert line_of(text, ("c",)) == 5
    assert line_of(text, ("d",)) == 10
    assert line_of(text, ("e", "f g", "h")) == 12


# --- invariants -------------------------------------------------------------------------------

scores = st.integers(0, 100).map(lambda value: value / 100)
some_findings = st.lists(
    st.builds(
        finding,
        scores,
        st.integers(1, 6),
        st.one_of(st.none(), st.floats(0, 80)),
        label=st.sampled_from(["mass", "cyst"]),
        series=st.sampled_from([CT, DX]),
        number=st.integers(0, 10**6),
    ),
    max_size=6,
)
some_issues = st.lists(
    st.builds(issue, st.sampled_from(sorted(ISSUES)), st.sampled_from(SEVERITIES)), max_size=5
)


def ranking(flags: tuple[LaneFlag, ...]) -> dict[Lane, tuple[int, frozenset[str]]]:
    return {flag.lane: (flag.priority, frozenset(flag.rules)) for flag in flags}


@given(some_findings, some_issues, some_findings, some_issues)
def test_more_evidence_never_lowers_a_flag(
    findings: list[Finding],
    issues: list[IntegrityIssue],
    more_findings: list[Finding],
    more_issues: list[IntegrityIssue],
) -> None:
    shipped = load_policy(DEFAULT)
    before = ranking(apply(shipped, findings, issues, MODALITIES))
    after = ranking(apply(shipped, findings + more_findings, issues + more_issues, MODALITIES))
    for lane, (priority, rules) in before.items():
        assert after[lane][0] >= priority
        assert after[lane][1] >= rules


def wider(extent_mm: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
    if extent_mm is None:
        return None
    x, y, z = extent_mm
    return x + 5, y + 5, z + 5


@given(some_findings, st.data())
def test_a_finding_that_grows_never_lowers_a_flag(
    findings: list[Finding], data: st.DataObject
) -> None:
    shipped = load_policy(DEFAULT)
    before = ranking(apply(shipped, findings, [], MODALITIES))
    grown = [
        dataclasses.replace(
            one,
            score=min(1.0, one.score + data.draw(scores)),
            planes=one.planes + data.draw(st.integers(0, 3)),
            extent_mm=wider(one.extent_mm),
        )
        for one in findings
    ]
    after = ranking(apply(shipped, grown, [], MODALITIES))
    assert all(after[lane][0] >= priority for lane, (priority, _) in before.items())


@given(some_findings, some_issues)
def test_flags_survive_json(findings: list[Finding], issues: list[IntegrityIssue]) -> None:
    for flag in apply(load_policy(DEFAULT), findings, issues, MODALITIES):
        assert LaneFlag.from_json(flag.to_json()) == flag
        assert 1 <= flag.priority <= 100
