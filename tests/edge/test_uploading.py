"""What the cloud may answer, and what the agent makes of it: exact states, no lost object."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.backoff import Backoff
from edge.config import Cloud as CloudConfig
from edge.entries import State
from edge.intake import Intake
from edge.journal import Journal
from edge.spool import Spool
from edge.stow_client import Answer, CloudClient, Verdict, bytes_part
from edge.uploader import Uploader, whole
from tests import studies
from tests.edge.cloud import Cloud, Fault, Stored
from tests.edge.running_agent import wait_for


def cloud_config(url: str, **changed: object) -> CloudConfig:
    values: dict[str, object] = {
        "url": url,
        "key_file": None,
        "token_file": None,
        "headers": {},
        "ca_file": None,
        "connections": 2,
        "batch_objects": 4,
        "batch_bytes": 1 << 20,
        "connect_s": 5.0,
        "answer_s": 5.0,
        "backoff_first_s": 0.01,
        "backoff_max_s": 0.05,
    }
    return CloudConfig(**(values | changed))  # type: ignore[arg-type]


class Site:
    """Spool, journal and uploads in this process."""

    def __init__(self, folder: Path, url: str, **changed: object) -> None:
        self.spool = Spool(folder, min_free_bytes=0, max_bytes=1 << 40)
        self.journal = Journal(self.spool.journal_file)
        self.intake = Intake(
            self.spool,
            self.journal,
            max_object_bytes=1 << 30,
            first_state=State.READY,
            arrived=lambda entries: None,
        )
        self.uploader = Uploader(
            cloud_config(url, **changed), self.spool, self.journal, prepare=whole(self.spool)
        )

    def take(self, data: bytes, *, urgent: bool = False) -> None:
        arriving = self.spool.create()
        arriving.write_bytes(data)
        self.intake.take(arriving, source="test", urgent=urgent)
        self.intake.noting.flush()

    def count(self, state: State) -> int:
        return self.journal.totals().get(state, (0, 0))[0]

    def settle(self, seconds: float = 30) -> None:
        self.uploader.start()
        try:
            wait_for(
                lambda: not self.journal.totals().keys() & {State.READY, State.SENDING},
                "all is settled",
                seconds,
            )
        finally:
            self.uploader.stop(10)


type Sites = Callable[..., Site]
"""`sites(**changed)` makes a site that sends to the test's cloud."""


@pytest.fixture
def sites(tmp_path: Path, cloud: Cloud) -> Iterator[Sites]:
    made: list[Site] = []

    def make(**changed: object) -> Site:
        made.append(Site(tmp_path / f"spool-{len(made)}", cloud.url, **changed))
        return made[-1]

    yield make
    for site in made:
        site.intake.noting.stop()
        site.journal.close()


@pytest.fixture
def site(sites: Sites) -> Site:
    return sites()


def slices(count: int, seed: int, first: int = 1) -> list[bytes]:
    import numpy as np

    return [
        studies.to_bytes(studies.ct_image(np.full((8, 8), n, np.int16), seed=seed, number=n))
        for n in range(first, first + count)
    ]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(500),
        Fault(502, body=b"<html>"),
        Fault(503, headers={"Retry-After": "0"}),
        Fault(429),
        Fault(401),
        Fault(404),
        Fault(200, body=b"not json"),
        Fault(200, body=b"[1, 2]"),
        Fault(200, body=b"{}"),
        Fault(0),
        Fault(0, after_storing=True),
        Fault(500, after_storing=True),
        Fault(307, headers={"Location": "http://127.0.0.1:9/"}),
    ],
    ids=lambda fault: f"{fault.status}-{fault.after_storing}-{fault.body[:4]!r}",
)
def test_a_passing_fault_loses_nothing(site: Site, cloud: Cloud, fault: Fault) -> None:
    for data in slices(6, seed=1):
        site.take(data)
    cloud.faults = lambda number, objects: fault if number <= 2 else None
    site.settle()
    assert site.count(State.SENT) == 6
    assert len(cloud.objects) == 6


def test_an_answer_that_never_comes_is_given_up_and_the_objects_are_offered_again(
    sites: Sites, cloud: Cloud
) -> None:
    site = sites(answer_s=0.3)
    for data in slices(3, seed=2):
        site.take(data)
    cloud.faults = lambda number, objects: Fault(0, hang_s=1.0) if number == 1 else None
    site.settle()
    assert site.count(State.SENT) == 3


def test_one_object_that_the_cloud_chokes_on_does_not_hold_others_back(
    sites: Sites, cloud: Cloud
) -> None:
    site = sites(connections=1)
    for data in slices(9, seed=3):
        site.take(data)
    poison = 2

    def faults(number: int, objects: list[Stored]) -> Fault | None:
        bad = any(one.header.instance_number == poison for one in objects)
        return Fault(500) if bad and len(cloud.objects) < 8 else None

    cloud.faults = faults
    site.settle()
    assert len(cloud.objects) == 9
    assert cloud.objects[cloud.order[-1]].header.instance_number == poison


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_a_refused_request_is_offered_singly_and_only_the_culprit_is_refused(
    site: Site, cloud: Cloud, status: int
) -> None:
    for data in slices(5, seed=4):
        site.take(data)
    cloud.faults = lambda number, objects: (
        Fault(status, body=b'{"error": {"code": "too-large", "message": "x", "remedy": "y"}}')
        if any(one.header.instance_number == 3 for one in objects)
        else None
    )
    site.settle()
    assert site.count(State.SENT) == 4
    refused = site.journal.entries(State.REFUSED)
    assert [entry.reason for entry in refused] == [f"HTTP {status} too-large"]
    assert site.spool.verify(refused[0].sha256), "it is kept"


def test_a_refused_object_is_kept_with_its_reason_and_a_processing_failure_is_tried_again(
    site: Site, cloud: Cloud
) -> None:
    for data in slices(4, seed=5):
        site.take(data)
    tries = {"left": 3}

    def refuses(one: Stored) -> int | None:
        if one.header.instance_number == 1:
            return 0xA901
        if one.header.instance_number == 2 and tries["left"]:
            tries["left"] -= 1
            return 0x0110
        return None

    cloud.refuses = refuses
    site.settle()
    assert site.count(State.SENT) == 3
    assert site.journal.entries(State.REFUSED)[0].reason == "failure reason A901H"


def test_urgent_studies_overtake_and_the_first_study_comes_before_the_second(
    sites: Sites, cloud: Cloud
) -> None:
    site = sites(connections=1)
    for seed in (11, 12):
        for data in slices(3, seed=seed):
            site.take(data)
    for data in slices(3, seed=13):
        site.take(data, urgent=True)
    site.settle()
    order = [cloud.objects[sha256].header.study_instance_uid for sha256 in cloud.order]
    wanted = [studies.new_uid("study", seed) for seed in (13, 11, 12)]
    assert order == [uid for uid in wanted for _ in range(3)]


def test_batches_keep_to_their_bounds_and_hold_a_uid_once(sites: Sites, cloud: Cloud) -> None:
    site = sites(batch_bytes=4000, connections=1)
    data = slices(4, seed=14)
    corrected = studies.to_bytes(studies.ct_image(seed=14, number=1, BodyPartExamined="LEG"))
    for one in (*data, corrected):
        site.take(one)
    site.settle()
    assert len(cloud.objects) == 5
    assert all(size <= 4000 // min(map(len, data)) for size in cloud.sizes)


def test_memory_stays_bounded_while_a_large_object_goes_up(site: Site, cloud: Cloud) -> None:
    import tracemalloc

    import numpy as np

    pixels = np.zeros((4096, 2048), np.int16)
    site.take(studies.to_bytes(studies.ct_image(pixels, seed=15)))
    entry = site.journal.claim(1, 1 << 30)[0]
    part = whole(site.spool)(entry)
    tracemalloc.start()
    size = sum(len(chunk) for chunk in part.read())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size == entry.size > 16 << 20
    assert peak < size / 4, f"{peak} bytes"


def test_a_study_is_closed_only_when_nothing_of_it_is_on_its_way(site: Site, cloud: Cloud) -> None:
    for data in slices(3, seed=16):
        site.take(data)
    study = studies.new_uid("study", 16)
    site.journal.mark_over(study)
    assert site.journal.to_close() == []
    site.settle()
    site.uploader = Uploader(
        cloud_config(cloud.url), site.spool, site.journal, prepare=whole(site.spool)
    )
    site.uploader.start()
    wait_for(lambda: cloud.closed, "it is closed")
    site.uploader.stop(10)
    assert cloud.closed == [(study, [uid for uid, _ in site.journal.instances(study)])]
    assert site.journal.to_close() == []


def test_backoff_doubles_up_to_its_bound_with_jitter_and_ends_with_a_success() -> None:
    now = 0.0
    backoff = Backoff(1.0, 10.0, clock=lambda: now, draw=lambda: 0.5)
    assert [backoff.failed() for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert backoff.left() == 5.0
    assert backoff.failed(at_least=8.0) == 8.0
    assert backoff.failed(at_least=1e9) == 10.0, "no server may silence the agent for ever"
    now = 100.0
    assert backoff.left() == 0.0
    backoff.failed()
    backoff.succeeded()
    assert (backoff.left(), backoff.failures) == (0.0, 0)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"{}", b"[]", b"\xff\xfe"),
        *(b'{"00081199": 3}', b'{"00081199": {"Value": [{}]}}'),
        b'{"00081198": {"Value": [{"00081155": {"Value": ["1.2"]}, "00081197": {"Value": [1e999]}}'
        b"]}}",
    ],
)
def test_an_answer_that_makes_no_sense_is_told_as_such(cloud: Cloud, body: bytes) -> None:
    cloud.faults = lambda number, objects: Fault(200, body=body)
    client = CloudClient(cloud_config(cloud.url))
    data = slices(1, seed=17)[0]
    answer = client.store([bytes_part("1.2", data)])
    client.close()
    assert answer.verdict is Verdict.UNREADABLE
    assert isinstance(answer, Answer)


def test_claims_of_many_threads_never_share_an_object(site: Site) -> None:
    for data in slices(24, seed=18):
        site.take(data)
    claimed: list[int] = []
    lock = threading.Lock()

    def claim() -> None:
        while batch := site.journal.claim(2, 1 << 20):
            with lock:
                claimed.extend(entry.id for entry in batch)

    threads = [threading.Thread(target=claim) for _ in range(4)]
    _together(threads)
    assert sorted(claimed) == sorted(set(claimed))
    assert len(claimed) == 24
    assert site.journal.recover() == 24
    assert site.count(State.READY) == 24


def _together(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_renewed_token_and_the_extra_headers_go_with_every_request(
    tmp_path: Path, cloud: Cloud
) -> None:
    token = tmp_path / "token"
    token.write_text("eyJ.first-1_~=\n")
    config = cloud_config(cloud.url, token_file=token, headers={"X-Gateway": "site-7"})
    client = CloudClient(config)
    assert client.close_study("1.2", []).verdict is Verdict.READ
    assert cloud.headers["authorization"] == "Bearer eyJ.first-1_~="
    assert cloud.headers["x-gateway"] == "site-7"
    token.write_text("second")
    client.close_study("1.2", [])
    assert cloud.headers["authorization"] == "Bearer second"
    for broken in ("two words", "", "l\u00e9"):
        token.write_text(broken)
        answer = client.close_study("1.2", [])
        assert answer.verdict is Verdict.MISCONFIGURED
        assert answer.text.startswith("cloud.token_file holds no token")
    token.unlink()
    assert client.close_study("1.2", []).verdict is Verdict.MISCONFIGURED
    assert cloud.headers["authorization"] == "Bearer second", "nothing was sent without one"
    client.close()
