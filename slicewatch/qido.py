"""Search transactions of DICOMweb (QIDO-RS, PS3.18 section 10.6)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import Any

from slicewatch import catalogue, holdings, matching, wado
from slicewatch.catalogue import INSTANCE_ATTRIBUTES, SERIES_ATTRIBUTES, STUDY_ATTRIBUTES, Study
from slicewatch.holdings import Held
from slicewatch.limits import Limits
from slicewatch.matching import Test
from slicewatch.storage import Storage

type Json = dict[str, Any]

MOST_RESULTS = 1000
DEFAULT_RESULTS = 100
_WORKERS = 8

STUDY_UID, SERIES_UID, SOP_UID = "0020000D", "0020000E", "00080018"
_MODALITIES = "00080061"
_MODALITY = "00080060"
_NOT_MATCHING = ("limit", "offset", "fuzzymatching", "includefield", "accept")


class Level(IntEnum):
    """What is searched for."""

    STUDY = 1
    SERIES = 2
    INSTANCE = 3


# Attributes that can be matched, by the level that has them.
_KEYS: dict[Level, dict[str, str]] = {
    Level.STUDY: {**STUDY_ATTRIBUTES, _MODALITIES: "CS"},
    Level.SERIES: SERIES_ATTRIBUTES,
    Level.INSTANCE: {**INSTANCE_ATTRIBUTES, SOP_UID: "UI"},
}


class BadQuery(ValueError):
    """The query cannot be answered; the text names the parameter and never its value."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """A search's parameters (PS3.18 section 8.3.4).

    Attributes:
        tests: tag → what a value must pass; universal matching left out.
        values: tag → the key's values as they were sent.
        fuzzy: fuzzy matching was asked for, which is not done.
    """

    tests: dict[str, Test]
    values: dict[str, list[str]]
    limit: int
    offset: int
    fuzzy: bool

    def page(self, found: Iterable[Json]) -> Found:
        """The results that are asked for."""
        # One more than wanted tells whether there are more.
        wanted = list(islice(found, self.offset, self.offset + self.limit + 1))
        return Found(wanted[: self.limit], len(wanted) > self.limit)


@dataclass(frozen=True, slots=True)
class Found:
    """The results, and whether there are more of them after these."""

    results: list[Json]
    more: bool


def parse(parameters: Sequence[tuple[str, str]], known: Mapping[str, str]) -> Parameters:
    """Read the parameters of a query.

    Args:
        known: tag → VR of the attributes that can be matched.

    Raises:
        BadQuery: a name that is no attribute of this search, or a malformed value.
    """
    plain: dict[str, str] = {}
    values: dict[str, list[str]] = {}
    for name, value in parameters:
        if name in _NOT_MATCHING:
            plain[name] = value
            if name == "includefield":
                _check_fields(value)
        else:
            values.setdefault(_tag(name), []).append(value)
    tests: dict[str, Test] = {}
    for tag, given in values.items():
        if tag not in known:
            raise BadQuery(f"{tag} cannot be matched in this search")
        try:
            test = matching.compile_key(known[tag], given)
        except matching.BadKey as error:
            raise BadQuery(f"the value of {tag} cannot be matched: {error}") from None
        if test is not None:
            tests[tag] = test
    return Parameters(
        tests=tests,
        values=values,
        limit=min(MOST_RESULTS, _count(plain, "limit", DEFAULT_RESULTS, 1)),
        offset=_count(plain, "offset", 0, 0),
        fuzzy=_truth(plain.get("fuzzymatching", "false")),
    )


def keys_of(level: Level) -> dict[str, str]:
    """Tag → VR of what can be matched when this level is searched for."""
    return {tag: vr for one in Level if one <= level for tag, vr in _KEYS[one].items()}


def search(
    storage: Storage,
    level: Level,
    query: Parameters,
    scope: Sequence[str],
    base_url: str,
    limits: Limits,
) -> Found:
    """The matches, in an order that stays: the newest study first, then by series and instance
    number. Attributes of the levels above are given where the URL does not fix them.

    Args:
        query: by the keys of `keys_of`.
        scope: study and series UID that the URL names, if it does.
        base_url: of the DICOMweb service, without a slash at its end.
    """
    studies = _studies(storage, query, scope)
    if level is Level.STUDY:
        return query.page(_present_studies(storage, studies, base_url))
    matches = _series(storage, query, scope, studies)
    if level is Level.SERIES:
        return query.page(_present_series(storage, matches, base_url, bare=bool(scope)))
    return query.page(_instances(storage, query, scope, matches, base_url, limits))


# --- reading the query --------------------------------------------------------------------------


def _tag(name: str) -> str:
    """An attribute's tag, of its keyword or of the tag itself."""
    from pydicom.datadict import tag_for_keyword

    if len(name) == 8 and all(char in "0123456789abcdefABCDEF" for char in name):
        return name.upper()
    tag = tag_for_keyword(name) if name.isidentifier() else None
    if tag is None:
        raise BadQuery(f"{name[:40]!r} is neither a parameter nor an attribute of DICOM")
    return f"{tag:08X}"


def _check_fields(value: str) -> None:
    """``includefield`` asks for attributes; all that are kept are given anyway."""
    for name in value.split(","):
        for part in name.split("."):
            if part != "all":
                _tag(part)


def _count(plain: dict[str, str], name: str, default: int, least: int) -> int:
    text = plain.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10) or int(text) < least:
        raise BadQuery(f"{name} is no whole number of at least {least}")
    return int(text)


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise BadQuery("fuzzymatching is neither true nor false")
    return text == "true"


# --- studies ------------------------------------------------------------------------------------


def _value(attributes: Json, tag: str) -> Any:
    value = (attributes.get(tag, {}).get("Value") or [""])[0]
    return "" if value is None else value


def _tests(query: Parameters, level: Level) -> dict[str, Test]:
    return {tag: test for tag, test in query.tests.items() if tag in _KEYS[level]}


def _passes(attributes: Json, tests: dict[str, Test]) -> bool:
    return all(matching.matches(attributes.get(tag), test) for tag, test in tests.items())


def _studies(storage: Storage, query: Parameters, scope: Sequence[str]) -> list[Study]:
    """The studies that match, the newest first."""
    tests = _tests(query, Level.STUDY)
    modality = tests.pop(_MODALITIES, None)
    named = [uid for value in query.values.get(STUDY_UID, ()) for uid in matching.uid_list(value)]
    uids = frozenset(scope[:1]) or frozenset(named) or None
    dates = matching.date_range(query.values.get("00080020", ()))
    found = [
        one for one in catalogue.studies(storage, uids, dates) if _passes(one.attributes, tests)
    ]
    if modality is not None:
        having = {
            one.study
            for one in catalogue.series(storage, scope[0] if scope else None)
            if matching.matches(one.attributes.get(_MODALITY), modality)
        }
        found = [one for one in found if one.uid in having]
    found.sort(key=lambda one: one.uid)
    found.sort(key=_began, reverse=True)
    return found


def _began(study: Study) -> tuple[str, str]:
    return str(_value(study.attributes, "00080020")), str(_value(study.attributes, "00080030"))


def _ahead[T, U](work: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """`work` of each item in order, some at a time, and no more than are asked for."""
    waiting = iter(items)
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="search") as pool:
        while batch := list(islice(waiting, _WORKERS)):
            yield from pool.map(work, batch)


def _present_studies(storage: Storage, studies: Iterable[Study], base_url: str) -> Iterator[Json]:
    def present(study: Study) -> Json | None:
        counts = catalogue.counts_of(storage, study)
        if not counts:
            return None
        modalities = sorted(
            {
                str(_value(one.attributes, _MODALITY))
                for one in catalogue.series(storage, study.uid)
                if one.uid in counts
            }
            - {""}
        )
        return _sorted(
            study.attributes
            | _available(f"{base_url}/studies/{study.uid}")
            | {
                _MODALITIES: {"vr": "CS"} | ({"Value": modalities} if modalities else {}),
                "00201206": {"vr": "IS", "Value": [len(counts)]},
                "00201208": {"vr": "IS", "Value": [sum(counts.values())]},
            }
        )

    return (one for one in _ahead(present, studies) if one is not None)


def _available(url: str) -> Json:
    """Retrieve URL and Instance Availability."""
    return {
        "00080056": {"vr": "CS", "Value": ["ONLINE"]},
        "00081190": {"vr": "UR", "Value": [url]},
    }


def _sorted(attributes: Json) -> Json:
    return dict(sorted(attributes.items()))


# --- series -------------------------------------------------------------------------------------

type _Series = tuple[Study, catalogue.Series]


def _series(
    storage: Storage, query: Parameters, scope: Sequence[str], studies: list[Study]
) -> list[_Series]:
    """The series that match, each with its study, in the order of the studies."""
    tests = _tests(query, Level.SERIES)
    place = {one.uid: index for index, one in enumerate(studies)}
    if len(place) == 1:
        found = catalogue.series(storage, next(iter(place)))
    else:
        found = catalogue.series(storage) if place else iter(())
    series = [
        one
        for one in found
        if one.study in place
        and (len(scope) < 2 or one.uid == scope[1])
        and _passes(one.attributes, tests)
    ]
    series.sort(key=lambda one: (place[one.study], *_numbered(one.attributes, "00200011"), one.uid))
    return [(studies[place[one.study]], one) for one in series]


def _numbered(attributes: Json, tag: str) -> tuple[bool, int]:
    """A key that puts what has no number last."""
    number = _value(attributes, tag)
    return (False, number) if isinstance(number, int) else (True, 0)


def _present_series(
    storage: Storage, series: Iterable[_Series], base_url: str, *, bare: bool
) -> Iterator[Json]:
    counted: dict[str, dict[str, int]] = {}

    def present(pair: _Series) -> Json | None:
        study, one = pair
        # Series of one study follow each other: it is counted once, or by two at once.
        if study.uid not in counted:
            counted[study.uid] = catalogue.counts_of(storage, study)
        count = counted[study.uid].get(one.uid)
        if not count:
            return None
        return _sorted(
            ({} if bare else study.attributes)
            | {STUDY_UID: study.attributes[STUDY_UID]}
            | one.attributes
            | _available(f"{base_url}/studies/{one.study}/series/{one.uid}")
            | {"00201209": {"vr": "IS", "Value": [count]}}
        )

    return (one for one in _ahead(present, series) if one is not None)


# --- instances ----------------------------------------------------------------------------------


def _instances(
    storage: Storage,
    query: Parameters,
    scope: Sequence[str],
    series: list[_Series],
    base_url: str,
    limits: Limits,
) -> Iterator[Json]:
    tests = _tests(query, Level.INSTANCE)
    for study, one in series:
        above: Json = {
            STUDY_UID: study.attributes[STUDY_UID],
            SERIES_UID: one.attributes[SERIES_UID],
        }
        if not scope:
            above |= study.attributes
        if len(scope) < 2:
            above |= one.attributes
        matches: list[tuple[tuple[bool, int, str], Held, Json]] = []
        for held in holdings.listing(storage, one.study, one.uid):
            attributes = catalogue.instance_attributes(storage, held, limits)
            if _passes(attributes, tests):
                place = *_numbered(attributes, "00200013"), held.instance
                matches.append((place, held, attributes))
        for _, held, attributes in sorted(matches, key=lambda match: match[0]):
            yield _sorted(above | attributes | _available(wado.instance_url(base_url, held)))
