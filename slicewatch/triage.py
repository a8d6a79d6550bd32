"""Triage: a policy in TOML maps findings and integrity issues to lanes and a priority.

Every rule is looked at; the rules that match add up, and the highest priority of a lane wins.
Conditions are lower bounds only and nothing takes a flag away, so more evidence never lowers a
study. docs/triage.md describes the file.
"""

from __future__ import annotations

import hashlib
import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from slicewatch import settings as app_settings
from slicewatch.issue_codes import ISSUES, SEVERITIES
from slicewatch.records import Finding, IntegrityIssue, Lane, LaneFlag
from slicewatch.toml_lines import KeyPath, dotted, line_of, line_of_error

MAX_RULES = 100
"""Keeps the names of all rules of a study within one durable message."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_CODE_STRING = re.compile(r"[A-Z0-9_ ]{1,16}")  # PS3.5 section 6.2, CS


class PolicyError(ValueError):
    """A triage policy cannot be used; the text names file, line and key, and what to change."""

    def __init__(self, path: Path, line: int | None, key: str, problem: str) -> None:
        where = f"{path}" if line is None else f"{path}, line {line}"
        super().__init__(f"{where}: {key}: {problem}" if key else f"{where}: {problem}")
        self.path = path
        self.line = line
        self.key = key


@dataclass(frozen=True, slots=True)
class FindingCondition:
    """What a finding must be; an empty tuple or a bound of 0 asks nothing.

    `label` and `model` (``name@version``) are patterns with ``*`` and ``?``, any of which fits.
    """

    label: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    modality: tuple[str, ...] = ()
    min_score: float = 0.0
    min_mean_score: float = 0.0
    min_slices: int = 1
    min_size_mm: float = 0.0

    def fits(self, finding: Finding, modality: str) -> bool:
        """Whether the finding meets every bound.

        A size that is unknown for want of geometry meets any bound: nobody can say that the
        finding is too small.
        """
        return (
            _fits_any(finding.label, self.label)
            and _fits_any(finding.model, self.model)
            and (not self.modality or modality in self.modality)
            and finding.score >= self.min_score
            and finding.mean_score >= self.min_mean_score
            and slice_positions(finding) >= self.min_slices
            and (finding.extent_mm is None or max(finding.extent_mm[:2]) >= self.min_size_mm)
        )


@dataclass(frozen=True, slots=True)
class IntegrityCondition:
    """What an integrity issue must be; an empty tuple asks nothing."""

    code: tuple[str, ...] = ()
    min_severity: str = SEVERITIES[0]

    def fits(self, issue: IntegrityIssue) -> bool:
        """Whether it is one of the codes and severe enough."""
        severe = SEVERITIES.index(issue.severity) >= SEVERITIES.index(self.min_severity)
        return severe and (not self.code or issue.code in self.code)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: at least `min_count` findings, or integrity issues, that fit `when`."""

    name: str
    lane: Lane
    priority: int
    when: FindingCondition | IntegrityCondition
    min_count: int = 1


@dataclass(frozen=True, slots=True)
class Policy:
    """A triage policy; `sha256` is of the file's bytes, so `sha256sum` tells it too."""

    name: str
    sha256: str
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Triage:
    """The flags of a study, and for each finding, in their order, the rules that it met."""

    flags: tuple[LaneFlag, ...]
    rules_met: tuple[tuple[str, ...], ...]


@cache
def current() -> Policy:
    """The policy of this process, by its app settings, read on first use."""
    return load_policy(app_settings.current().policy)


def slice_positions(finding: Finding) -> int:
    """How many slice positions the finding covers: repeats of a dynamic series count once."""
    return finding.planes or len(finding.slices)


# --- application ------------------------------------------------------------------------------


def apply(
    policy: Policy,
    findings: Sequence[Finding],
    issues: Sequence[IntegrityIssue],
    modalities: Mapping[str, str],
) -> tuple[LaneFlag, ...]:
    """The lanes that a study goes to, the clinical one first; empty when no rule matches.

    Args:
        modalities: Modality by SeriesInstanceUID.
    """
    return triage(policy, findings, issues, modalities).flags


def triage(
    policy: Policy,
    findings: Sequence[Finding],
    issues: Sequence[IntegrityIssue],
    modalities: Mapping[str, str],
) -> Triage:
    """The same as `apply`, and which rules each finding met."""
    met: list[list[str]] = [[] for _ in findings]
    matched: list[tuple[Rule, list[Finding], list[IntegrityIssue]]] = []
    for rule in policy.rules:
        if isinstance(rule.when, IntegrityCondition):
            issues_hit = [issue for issue in issues if rule.when.fits(issue)]
            if len(issues_hit) >= rule.min_count:
                matched.append((rule, [], issues_hit))
            continue
        hits = [
            index
            for index, finding in enumerate(findings)
            if rule.when.fits(finding, modalities.get(finding.series_instance_uid, ""))
        ]
        if len(hits) >= rule.min_count:
            matched.append((rule, [findings[index] for index in hits], []))
            for index in hits:
                met[index].append(rule.name)
    flags = [_flag(lane, [hit for hit in matched if hit[0].lane is lane]) for lane in Lane]
    return Triage(tuple(flag for flag in flags if flag), tuple(map(tuple, met)))


def _flag(
    lane: Lane, matched: Sequence[tuple[Rule, list[Finding], list[IntegrityIssue]]]
) -> LaneFlag | None:
    if not matched:
        return None
    findings = {finding.id: finding for _, found, _ in matched for finding in found}
    issues = dict.fromkeys(issue for _, _, found in matched for issue in found)
    return LaneFlag(
        lane=lane,
        priority=max(rule.priority for rule, _, _ in matched),
        rules=tuple(rule.name for rule, _, _ in matched),
        summary=_summary(list(findings.values()), list(issues)),
    )


def _summary(findings: Sequence[Finding], issues: Sequence[IntegrityIssue]) -> str:
    parts = []
    if findings:
        first = min(findings, key=lambda one: (-one.score, -one.mean_score, one.id))
        positions = slice_positions(first)
        size = " × ".join(f"{side:.0f}" for side in first.extent_mm or ())
        parts.append(
            f"{first.label} {first.score:.2f} on {_count(positions, 'slice')}"
            + (f", {size} mm" if size else "")
            + (f", and {_count(len(findings) - 1, 'more finding')}" if len(findings) > 1 else "")
        )
    if issues:
        worst = min(issues, key=lambda one: (-SEVERITIES.index(one.severity), one.code))
        parts.append(
            f"{worst.code} ({worst.severity}) on {_count(len(worst.blobs), 'object')}"
            + (f", and {_count(len(issues) - 1, 'more issue')}" if len(issues) > 1 else "")
        )
    return "; ".join(parts)[:300]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _fits_any(text: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(text, pattern) for pattern in patterns)


# --- the file ---------------------------------------------------------------------------------


def load_policy(path: Path | str) -> Policy:
    """Read and check a policy.

    Raises:
        PolicyError: the file is missing, no TOML, or says something that has no meaning.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PolicyError(path, None, "", f"cannot be read: {error.strerror}") from error
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise PolicyError(path, line, "", "is not UTF-8") from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = line_of_error(error, text)
        raise PolicyError(path, line, "", f"is not TOML: {error}") from error
    try:
        return _policy(document, hashlib.sha256(data).hexdigest())
    except _Problem as problem:
        line = line_of(text, problem.at)
        raise PolicyError(path, line, dotted(problem.key), problem.text) from problem


class _Problem(Exception):
    """Something at `key` of the document; `at` is what the line is taken from."""

    def __init__(self, key: KeyPath, text: str, at: KeyPath | None = None) -> None:
        super().__init__(text)
        self.key = key
        self.at = key if at is None else at
        self.text = text


type _Read = Callable[[Any], Any]
"""Takes a TOML value, gives the checked one; raises ValueError with what it must be."""


def _policy(document: dict[str, Any], sha256: str) -> Policy:
    values = _table(document, (), {"name": _name, "rule": _rules}, required=("name", "rule"))
    rules: list[Rule] = []
    for index, table in enumerate(values["rule"]):
        rule = _rule(table, ("rule", index))
        if any(rule.name == other.name for other in rules):
            raise _Problem(("rule", index, "name"), f"another rule is called {rule.name!r} too")
        rules.append(rule)
    return Policy(values["name"], sha256, tuple(rules))


def _rule(table: dict[str, Any], path: KeyPath) -> Rule:
    values = _table(table, path, _RULE, required=("name", "lane", "priority"))
    kinds = [kind for kind in ("finding", "integrity") if kind in values]
    if len(kinds) != 1:
        raise _Problem(path, "must have one of the tables 'finding' and 'integrity'")
    kind = kinds[0]
    condition = _table(values[kind], (*path, kind), _CONDITIONS[kind])
    min_count = condition.pop("min_count", 1)
    when = FindingCondition(**condition) if kind == "finding" else IntegrityCondition(**condition)
    return Rule(values["name"], values["lane"], values["priority"], when, min_count)


def _table(
    table: dict[str, Any], path: KeyPath, reads: Mapping[str, _Read], required: Sequence[str] = ()
) -> dict[str, Any]:
    """The checked values of a table that may hold the keys of `reads` and no other."""
    values = {}
    for key, value in table.items():
        if key not in reads:
            raise _Problem((*path, key), f"is no key here; there are {', '.join(reads)}")
        try:
            values[key] = reads[key](value)
        except ValueError as error:
            raise _Problem((*path, key), f"must be {error}, not {value!r:.60}") from None
    for key in required:
        if key not in values:
            raise _Problem((*path, key), "is missing", at=path)
    return values


def _name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("lower case letters, digits and hyphens, at most 64")
    return value


def _rules(value: Any) -> list[dict[str, Any]]:
    tables = isinstance(value, list) and all(isinstance(item, dict) for item in value)
    if not tables or not 1 <= len(value) <= MAX_RULES:
        raise ValueError(f"1 to {MAX_RULES} tables [[rule]]")
    return list(value)


def _any_table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("a table of conditions")
    return value


def _lane(value: Any) -> Lane:
    if value not in list(Lane):
        raise ValueError("one of " + ", ".join(Lane))
    return Lane(value)


def _severity(value: Any) -> str:
    if value not in SEVERITIES:
        raise ValueError("one of " + ", ".join(SEVERITIES))
    return str(value)


def _whole(low: int, high: int) -> _Read:
    def read(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return value

    return read


def _number(low: float, high: float) -> _Read:
    def read(value: Any) -> float:
        # A bool is an int for Python, and nan is in no range.
        if type(value) not in (int, float) or not low <= value <= high or math.isnan(value):
            raise ValueError(f"a number from {low:g} to {high:g}")
        return float(value)

    return read


def _texts(what: str, valid: Callable[[str], object]) -> _Read:
    def read(value: Any) -> tuple[str, ...]:
        items = [value] if isinstance(value, str) else value
        listed = isinstance(items, list) and len(items) > 0
        if not listed or not all(isinstance(item, str) and valid(item) for item in items):
            raise ValueError(f"{what}, or a list of them")
        return tuple(items)

    return read


_RULE: dict[str, _Read] = {
    "name": _name,
    "lane": _lane,
    "priority": _whole(1, 100),
    "finding": _any_table,
    "integrity": _any_table,
}
_CONDITIONS: dict[str, dict[str, _Read]] = {
    "finding": {
        "label": _texts("a label or a pattern", bool),
        "model": _texts("name@version of a model or a pattern", bool),
        "modality": _texts("a Modality such as CT", _CODE_STRING.fullmatch),
        "min_score": _number(0, 1),
        "min_mean_score": _number(0, 1),
        "min_slices": _whole(1, 100_000),
        "min_size_mm": _number(0, 10_000),
        "min_count": _whole(1, 100_000),
    },
    "integrity": {
        "code": _texts("one of " + ", ".join(sorted(ISSUES)), ISSUES.__contains__),
        "min_severity": _severity,
        "min_count": _whole(1, 100_000),
    },
}
