"""QIDO-RS: what was stored is found by the keys that are kept; each fault has its answer."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from dicomweb_client import DICOMwebClient
from hypothesis import given
from hypothesis import strategies as st

from slicewatch import catalogue, holdings, matching, qido
from slicewatch import settings as app_settings
from slicewatch import storage as app_storage
from slicewatch.settings import Settings
from slicewatch.storage import INCOMING, Storage
from tests import studies
from tests.dicomweb_doors import URL, client, session, store

DOORS = (
    "qido_instances",
    "qido_series",
    "qido_series_instances",
    "qido_studies",
    "qido_study_instances",
    "qido_study_series",
)


@pytest.fixture(autouse=True)
def app(
    settings: Settings, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> pytest.MonkeyPatch:
    """The app's settings and storage are the tests'."""
    monkeypatch.setattr(app_settings, "current", lambda: settings)
    monkeypatch.setattr(app_storage, "current", lambda: storage)
    return monkeypatch


@pytest.fixture(scope="module")
def http() -> Iterator[requests.Session]:
    with session(DOORS) as opened:
        yield opened


@pytest.fixture
def web(http: requests.Session) -> DICOMwebClient:
    return client(http)


class Archive:
    """Stores studies that one accession number tells from those of other tests."""

    def __init__(self, storage: Storage, settings: Settings, seed: int) -> None:
        self._storage, self._settings = storage, settings
        self._seeds = itertools.count(seed * 1000)
        self.accession = f"ACC{seed}"

    def put(self, slices: int = 1, **attributes: Any) -> str:
        """Store a study; its UID."""
        seed = next(self._seeds)
        series = studies.ct_series(
            slices, seed=seed, rows=8, columns=8, AccessionNumber=self.accession, **attributes
        )
        store(self._storage, self._settings, *map(studies.to_bytes, series))
        return studies.new_uid("study", seed)

    def add(self, *datasets: Any) -> None:
        store(self._storage, self._settings, *map(studies.to_bytes, datasets))


@pytest.fixture
def archive(storage: Storage, settings: Settings, seed: int) -> Archive:
    return Archive(storage, settings, seed)


def value(attributes: dict[str, Any], tag: str) -> Any:
    (one,) = attributes[tag]["Value"]
    return one


def uids(found: list[dict[str, Any]], tag: str = qido.STUDY_UID) -> list[str]:
    return [value(one, tag) for one in found]


# --- results ------------------------------------------------------------------------------------


def test_a_study_is_found_with_what_the_standard_asks_for(
    web: DICOMwebClient, archive: Archive, seed: int
) -> None:
    study = archive.put(3, PatientName="Müller^Jörg", PatientID="P-1")
    other = studies.mr_image(seed=seed * 1000, series=2, StudyInstanceUID=study)
    archive.add(other, studies.structured_report(seed=seed * 1000))
    (found,) = web.search_for_studies(search_filters={"AccessionNumber": archive.accession})
    assert found == dict(sorted(found.items()))
    assert value(found, "00100010") == {"Alphabetic": "Müller^Jörg"}
    assert value(found, "00100020") == "P-1"
    assert value(found, qido.STUDY_UID) == study
    assert (value(found, "00080020"), value(found, "00080030")) == ("20240305", "101500")
    assert found["00080061"] == {"vr": "CS", "Value": ["CT", "MR", "SR"]}
    assert (value(found, "00201206"), value(found, "00201208")) == (3, 5)
    assert value(found, "00081190") == f"{URL}/studies/{study}"
    assert value(found, "00080056") == "ONLINE"


def test_series_and_instances_are_found_at_their_levels(
    web: DICOMwebClient, archive: Archive, seed: int
) -> None:
    study = archive.put(3)
    archive.add(studies.structured_report(seed=seed * 1000))
    ct, sr = web.search_for_series(study)
    assert [value(one, "00080060") for one in (ct, sr)] == ["CT", "SR"]
    assert [value(one, "00201209") for one in (ct, sr)] == [3, 1]
    assert value(ct, "0008103E") == "CT 1"
    assert "00100010" not in ct, "attributes of the study that the URL names are known"
    series = value(ct, qido.SERIES_UID)
    instances = web.search_for_instances(study, series)
    assert [value(one, "00200013") for one in instances] == [1, 2, 3]
    first = instances[0]
    assert value(first, "00080016") == studies.CT_STORAGE
    assert [value(first, tag) for tag in ("00280010", "00280011", "00280100")] == [8, 8, 16]
    assert value(first, "00083002") == "1.2.840.10008.1.2.1"
    uid = value(first, qido.SOP_UID)
    assert value(first, "00081190") == f"{URL}/studies/{study}/series/{series}/instances/{uid}"
    assert len(web.search_for_instances(study)) == 4


def test_searches_of_all_series_and_instances_give_the_levels_above(
    http: requests.Session, archive: Archive
) -> None:
    study = archive.put(2, PatientID="P-2")
    query = {"AccessionNumber": archive.accession}
    (series,) = http.get(f"{URL}/series", params=query).json()
    assert value(series, "00100020") == "P-2"
    instances = http.get(f"{URL}/instances", params={**query, "InstanceNumber": "2"}).json()
    assert uids(instances) == [study]
    assert value(instances[0], "00100020") == "P-2"
    assert value(instances[0], "00080060") == "CT"


def test_what_is_sent_twice_is_counted_once(
    web: DICOMwebClient, archive: Archive, seed: int
) -> None:
    archive.put(2)
    archive.add(*studies.ct_series(2, seed=seed * 1000, rows=8, columns=8))
    altered = studies.ct_image(seed=seed * 1000, SeriesDescription="other bytes")
    archive.add(altered)
    (found,) = web.search_for_studies(search_filters={"AccessionNumber": archive.accession})
    assert value(found, "00201208") == 2


def test_counts_are_right_while_a_study_arrives_from_many_at_once(
    web: DICOMwebClient, storage: Storage, settings: Settings, seed: int
) -> None:
    files = [studies.to_bytes(one) for one in studies.ct_series(24, seed=seed, rows=8, columns=8)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: store(storage, settings, *files[n::6]), range(6)))
    filters = {"StudyInstanceUID": studies.new_uid("study", seed)}
    (found,) = web.search_for_studies(search_filters=filters)
    assert value(found, "00201208") == 24


def test_counts_of_a_study_at_rest_are_kept_until_more_comes(
    web: DICOMwebClient, archive: Archive, storage: Storage, seed: int, app: pytest.MonkeyPatch
) -> None:
    study = archive.put(2)
    filters = {"StudyInstanceUID": study}

    def counted() -> int:
        (found,) = web.search_for_studies(search_filters=filters)
        (series,) = web.search_for_series(study)
        assert value(series, "00201209") == value(found, "00201208")
        return int(value(found, "00201208"))

    def stamped(hours: float) -> None:
        """The last request began that long ago."""
        arrived = (datetime.now(UTC) - timedelta(hours=hours)).isoformat()
        entity = {"PartitionKey": "study", "RowKey": study, "arrived": arrived}
        storage.merge_entity(catalogue.CATALOGUE, entity)

    def kept() -> dict[str, int] | None:
        (one,) = catalogue.studies(storage, frozenset({study}))
        return one.counts

    assert counted() == 2
    assert kept() is None, "a request may still be storing"
    stamped(hours=2)
    assert counted() == 2
    assert list((kept() or {}).values()) == [2]
    with app.context() as patched:
        patched.setattr(holdings, "listing", None)
        assert counted() == 2, "without listing again"
    archive.add(studies.ct_image(seed=seed * 1000, number=3))
    assert kept() is None
    assert counted() == 3


def test_a_study_of_which_nothing_was_stored_is_not_found(
    http: requests.Session, archive: Archive, storage: Storage
) -> None:
    study = archive.put(1)
    kept = archive.put(1)
    for blob in storage.listing(INCOMING, f"{study}/"):
        storage.delete(INCOMING, blob.name)
    query = {"AccessionNumber": archive.accession, "limit": "1"}
    answer = http.get(f"{URL}/studies", params=query)
    assert uids(answer.json()) == [kept]
    assert "Warning" not in answer.headers


def test_the_catalogue_is_rebuilt_from_the_objects(
    web: DICOMwebClient, archive: Archive, storage: Storage, settings: Settings
) -> None:
    study = archive.put(2)
    series = value(web.search_for_series(study)[0], qido.SERIES_UID)
    before = web.search_for_instances(study)
    for partition, row in (("study", study), (study, series)):
        storage._account.table(catalogue.CATALOGUE).delete_entity(partition, row)
    for blob in storage.listing(INCOMING, f"{study}/"):  # as something else than a door stores
        storage.write(INCOMING, blob.name, storage.read(INCOMING, blob.name))
    assert web.search_for_series(study) == []
    assert catalogue.rebuild(storage) >= 1
    assert web.search_for_instances(study) == before
    (found,) = web.search_for_studies(search_filters={"AccessionNumber": archive.accession})
    assert value(found, qido.STUDY_UID) == study
    assert catalogue.rebuild(storage) == 0


def test_an_object_with_unusable_attributes_is_found_without_them(
    web: DICOMwebClient, storage: Storage, settings: Settings, seed: int
) -> None:
    data = studies.to_bytes(
        studies.ct_image(seed=seed, PatientName="n" * 5000, SeriesNumber="1", StudyID="\x1b$B")
    )
    bad = data.replace(b"\x20\x00\x11\x00IS\x02\x001 ", b"\x20\x00\x11\x00IS\x02\x00xx")
    assert bad != data
    store(storage, settings, bad)
    study = studies.new_uid("study", seed)
    (found,) = web.search_for_studies(search_filters={"StudyInstanceUID": study})
    assert "00100010" not in found
    assert value(found, "00100020") == f"GEN-{seed}"
    (series,) = web.search_for_series(study)
    assert "00200011" not in series


def test_no_patient_data_is_in_what_arrival_warns_or_logs(
    archive: Archive, storage: Storage, settings: Settings, seed: int,
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder,
) -> None:  # fmt: skip
    data = studies.to_bytes(studies.ct_image(seed=seed, PatientName="Doe^Jane", PatientSex="F"))
    bad = data.replace(b"19700101", b"DoeJane!")
    assert bad != data
    caplog.set_level("DEBUG")
    store(storage, settings, bad)
    said = caplog.text + " ".join(str(one.message) for one in recwarn)
    assert "Doe" not in said
    names = [f"{blob.name} {blob.metadata}" for blob in storage.listing(INCOMING)]
    assert not [name for name in names if "Doe" in name or f"GEN-{seed}" in name]


# --- matching -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "hits"),
    [
        ({"PatientID": "A-1"}, {0}),
        ({"PatientID": "a-1"}, set()),
        ({"PatientID": "A-*"}, {0, 1}),
        ({"PatientID": "?-1"}, {0, 2}),
        ({"PatientID": "*"}, {0, 1, 2}),
        ({"PatientID": ""}, {0, 1, 2}),
        ({"00100020": "B-1"}, {2}),
        ({"PatientName": "doe^*"}, {0, 1}),
        ({"PatientName": "Doe^Jane"}, {0}),
        ({"PatientName": "Jane"}, set()),
        ({"StudyDate": "20240101"}, {0}),
        ({"StudyDate": "20240101-20240615"}, {0, 1}),
        ({"StudyDate": "20240102-"}, {1, 2}),
        ({"StudyDate": "-20240101"}, {0}),
        ({"StudyTime": "0800-0859"}, {0}),
        ({"StudyTime": "083000"}, {0}),
        ({"StudyTime": "0831-"}, {1, 2}),
        ({"PatientID": "A-*", "StudyDate": "20240601-"}, {1}),
        ({"ModalitiesInStudy": "CT"}, {0, 1, 2}),
        ({"ModalitiesInStudy": "MR"}, set()),
        ({"ReferringPhysicianName": "*"}, {0, 1, 2}),
        ({"ReferringPhysicianName": "x*"}, set()),
        ({"includefield": "all"}, {0, 1, 2}),
        ({"includefield": "00081030,PatientWeight"}, {0, 1, 2}),
    ],
)
def test_studies_match_as_the_standard_says(
    http: requests.Session, three: tuple[str, list[str]], query: dict[str, str], hits: set[int]
) -> None:
    accession, all_three = three
    answer = http.get(f"{URL}/studies", params={"AccessionNumber": accession, **query})
    assert answer.status_code == (200 if hits else 204)
    found = uids(answer.json()) if hits else []
    assert set(found) == {all_three[index] for index in hits}


@pytest.fixture(scope="module")
def three(storage: Storage, settings: Settings) -> tuple[str, list[str]]:
    """An accession number and its three studies."""
    archive = Archive(storage, settings, 990)
    return archive.accession, [
        archive.put(PatientID=pid, PatientName=name, StudyDate=date, StudyTime=time)
        for pid, name, date, time in (
            ("A-1", "Doe^Jane", "20240101", "083000"),
            ("A-2", "Doe^John", "20240601", "093000.5"),
            ("B-1", "Roe^Richard", "20241231", "2359"),
        )
    ]


def test_a_list_of_uids_matches_each_of_them(
    http: requests.Session, three: tuple[str, list[str]]
) -> None:
    first, second, _ = three[1]
    for query in (
        f"StudyInstanceUID={first},{second},1.2.3",
        f"StudyInstanceUID={first}&StudyInstanceUID={second}",
        f"0020000D={first}%5C{second}",
    ):
        assert set(uids(http.get(f"{URL}/studies?{query}").json())) == {first, second}


def test_keys_of_series_and_instances_match(web: DICOMwebClient, archive: Archive) -> None:
    study = archive.put(3)
    assert len(web.search_for_series(study, search_filters={"Modality": "CT"})) == 1
    assert (
        web.search_for_series(study, search_filters={"Modality": "C?", "SeriesNumber": "2"}) == []
    )
    (one,) = web.search_for_instances(study, search_filters={"InstanceNumber": "2"})
    uid = value(one, qido.SOP_UID)
    assert web.search_for_instances(study, search_filters={"SOPInstanceUID": uid}) == [one]
    for key, hits in (("Rows", 3), ("Columns", 3), ("SOPClassUID", 3)):
        wanted = {"Rows": "8", "Columns": "8", "SOPClassUID": studies.CT_STORAGE}[key]
        assert len(web.search_for_instances(study, search_filters={key: wanted})) == hits
        other = "9" if key != "SOPClassUID" else "1.2"
        assert web.search_for_instances(study, search_filters={key: other}) == []


@pytest.mark.parametrize(
    "query",
    [
        "Unknown=1",
        "PatientWeight=80",
        "00101030=80",
        "Modality=CT",
        "NumberOfStudyRelatedInstances=3",
        "00400275.00400009=1",
        "patient name=x",
        "StudyDate=2024",
        "StudyDate=20240101-2024",
        "StudyDate=-",
        "StudyTime=8",
        "StudyInstanceUID=1.2,x",
        "StudyInstanceUID=1.2*",
        "PatientID=a&PatientID=b",
        "PatientID=" + "a" * 2000,
        "limit=0",
        "limit=-1",
        "limit=x",
        "offset=-1",
        "offset=1e3",
        "fuzzymatching=yes",
        "includefield=Unknown",
        "&".join(["limit=1"] * 70),
    ],
)
def test_a_query_that_cannot_be_answered_is_told(http: requests.Session, query: str) -> None:
    answer = http.get(f"{URL}/studies?{query}")
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "bad-query"
    assert all(error.values())


def test_a_refusal_does_not_repeat_the_value(http: requests.Session) -> None:
    answer = http.get(f"{URL}/studies?PatientBirthDate=Doe^Jane")
    assert answer.status_code == 400
    assert "Doe" not in answer.text


def test_the_hosts_key_is_no_matching_key(http: requests.Session, archive: Archive) -> None:
    archive.put()
    query = f"AccessionNumber={archive.accession}&code=secret"
    assert http.get(f"{URL}/studies?{query}").status_code == 200


@pytest.mark.parametrize("path", ["studies/x/series", "studies/1.2/series/x/instances"])
def test_what_is_no_uid_is_refused(http: requests.Session, path: str) -> None:
    assert http.get(f"{URL}/{path}").status_code == 400


@given(pattern=st.text("ab*?", min_size=1, max_size=12), text=st.text("ab", max_size=12))
def test_wildcards_match_as_a_regular_expression_does(pattern: str, text: str) -> None:
    expression = "".join({"*": ".*", "?": "."}.get(char, char) for char in pattern)
    expected = re.fullmatch(expression, text) is not None
    test = matching.compile_key("LO", [pattern])
    assert expected == (test is None or test(text))


def test_a_hostile_pattern_takes_no_longer_than_its_length_allows() -> None:
    test = matching.compile_key("LO", ["*a" * 500 + "b"])
    assert test is not None
    assert not test("a" * 1000)


@given(vr=st.sampled_from(["DA", "TM", "UI", "IS", "PN", "LO", "CS"]), text=st.text(max_size=30))
def test_any_key_is_compiled_or_refused(vr: str, text: str) -> None:
    try:
        test = matching.compile_key(vr, [text])
    except matching.BadKey:
        return
    if test is not None:
        assert test("20240305") in (True, False)


# --- paging -------------------------------------------------------------------------------------


def test_paging_gives_each_study_once_and_says_when_there_are_more(
    http: requests.Session, web: DICOMwebClient, archive: Archive
) -> None:
    stored = [archive.put(StudyDate=f"2024010{day}") for day in range(1, 6)]
    query = {"AccessionNumber": archive.accession, "limit": "2"}
    first = http.get(f"{URL}/studies", params=query)
    assert uids(first.json()) == [stored[4], stored[3]], "the newest first"
    assert first.headers["Warning"] == (
        f"299 {URL}: There are additional results that can be requested"
    )
    last = http.get(f"{URL}/studies", params={**query, "offset": "4"})
    assert uids(last.json()) == [stored[0]]
    assert "Warning" not in last.headers
    assert http.get(f"{URL}/studies", params={**query, "offset": "5"}).status_code == 204
    filters = {"AccessionNumber": archive.accession}
    every = web.search_for_studies(limit=2, search_filters=filters, get_remaining=True)
    assert uids(every) == stored[::-1]


def test_instances_are_paged_across_series(
    http: requests.Session, archive: Archive, seed: int
) -> None:
    study = archive.put(3)
    more = studies.ct_series(3, seed=seed * 1000, series=2, rows=8, columns=8)
    archive.add(*more)
    address = f"{URL}/studies/{study}/instances"
    pages = [http.get(address, params={"limit": "2", "offset": str(n)}) for n in (0, 2, 4)]
    assert ["Warning" in page.headers for page in pages] == [True, True, False]
    found = [
        (value(one, "00200011"), value(one, "00200013")) for page in pages for one in page.json()
    ]
    assert found == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]


def test_fuzzy_matching_is_told_not_to_be_done(http: requests.Session, archive: Archive) -> None:
    archive.put(PatientName="Meyer^A")
    query = {"AccessionNumber": archive.accession, "fuzzymatching": "true"}
    answer = http.get(f"{URL}/studies", params=query)
    assert answer.status_code == 200
    assert "fuzzymatching parameter is not supported" in answer.headers["Warning"]
    none = http.get(f"{URL}/studies", params={**query, "PatientName": "Maier^A"})
    assert none.status_code == 204
    assert "Only literal matching" in none.headers["Warning"]
    assert (
        "Warning"
        not in http.get(f"{URL}/studies", params={**query, "fuzzymatching": "false"}).headers
    )
