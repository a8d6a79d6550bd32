"""Results reach a PACS: Orthanc takes them; one that refuses, is slow or away is answered right."""

from __future__ import annotations

import dataclasses
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pydicom
import pytest

from slicewatch import custody, custody_chain
from slicewatch.reporting import delivery, sending, stored
from slicewatch.settings import SettingError, Settings, load
from slicewatch.storage import Storage
from tests import studies
from tests.reporting import orthanc
from tests.reporting.orthanc import Orthanc
from tests.reporting.reviewed import marked, reported

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:highdicom.*")

OBJECTS = {"1.2.1": b"one", "1.2.2": b"two"}

type Answer = tuple[int, bytes] | Callable[[BaseHTTPRequestHandler], None]


class Pacs:
    """Answers each request with the next of `answers`, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [(200, b"{}")]
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        pacs = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                pacs.requests.append((self.path, dict(self.headers), body))
                answer = pacs.answers.pop(0) if len(pacs.answers) > 1 else pacs.answers[0]
                if callable(answer):
                    answer(self)
                    return
                self.send_response(answer[0])
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(answer[1])))
                self.end_headers()
                self.wfile.write(answer[1])

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/dicom-web/"


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    found = Pacs()
    threading.Thread(target=found.server.serve_forever, daemon=True).start()
    yield found
    found.server.shutdown()
    found.server.server_close()


def to(pacs: Pacs | Orthanc, settings: Settings, **changes: Any) -> Settings:
    values: dict[str, Any] = {"pacs_url": pacs.url, "pacs_timeout_s": 5.0} | changes
    return dataclasses.replace(settings, **values)


def module(failed: dict[str, int], taken: tuple[str, ...] = ()) -> bytes:
    """A Store Instances Response Module."""

    def reference(uid: str) -> dict[str, Any]:
        return {"00081155": {"vr": "UI", "Value": [uid]}}

    items = [
        reference(uid) | {"00081197": {"vr": "US", "Value": [why]}} for uid, why in failed.items()
    ]
    body: dict[str, Any] = {"00081198": {"vr": "SQ", "Value": items}} if items else {}
    if taken:
        body["00081199"] = {"vr": "SQ", "Value": [reference(uid) for uid in taken]}
    return json.dumps(body).encode()


# --- what is sent -------------------------------------------------------------------------------


def test_objects_go_in_one_multipart_message_with_the_token(pacs: Pacs, settings: Settings) -> None:
    assert sending.store(to(pacs, settings, pacs_token="secret"), OBJECTS) == {
        "1.2.1": "",
        "1.2.2": "",
    }
    ((path, headers, body),) = pacs.requests
    assert path == "/dicom-web/studies"
    assert headers["Authorization"] == "Bearer secret"
    assert headers["Content-Type"].startswith('multipart/related; type="application/dicom";')
    assert headers["Accept"] == "application/dicom+json"
    assert b"\r\n\r\none\r\n--" in body
    assert b"\r\n\r\ntwo\r\n--" in body
    sending.store(to(pacs, settings, pacs_token="Basic dXNlcg=="), OBJECTS)
    assert pacs.requests[-1][1]["Authorization"] == "Basic dXNlcg=="


# --- what is answered ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "first", "second"),
    [
        ((200, b""), "", ""),
        ((200, b"<xml/>"), "", ""),
        ((202, module({}, ("1.2.1", "1.2.2"))), "", ""),
        ((202, module({"1.2.1": 0x0122}, ("1.2.2",))), "failure reason 0122", ""),
        ((200, module({"1.2.2": 0xC000})), "", "failure reason C000"),
        ((409, module({"1.2.1": 0x0110})), "failure reason 0110", "answers 409"),
        ((202, b"not json"), "does not say of what", "does not say of what"),
        ((202, b'{"00081198": 7}'), "", ""),
        ((400, b""), "answers 400", "answers 400"),
        ((401, b""), "answers 401", "answers 401"),
        ((404, b""), "answers 404", "answers 404"),
        ((302, b""), "answers 302", "answers 302"),
    ],
)
def test_a_pacs_that_refuses_is_taken_at_its_word(
    pacs: Pacs, settings: Settings, answer: Answer, first: str, second: str
) -> None:
    pacs.answers = [answer]
    outcome = sending.store(to(pacs, settings), OBJECTS)
    assert first in outcome["1.2.1"]
    assert second in outcome["1.2.2"]
    assert [bool(outcome[uid]) for uid in OBJECTS] == [bool(first), bool(second)]
    assert len(pacs.requests) == 1, "no redirect is followed, nothing is tried again"


def _drops(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.close()


def _hangs(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(1.5)


def _drips(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(20):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)


@pytest.mark.parametrize(
    "answer", [(500, b""), (503, b""), (429, b""), (408, b""), _drops, _hangs, _drips]
)
def test_a_pacs_that_is_away_slow_or_busy_is_worth_another_try(
    pacs: Pacs, settings: Settings, answer: Answer
) -> None:
    pacs.answers = [answer]
    with pytest.raises(sending.PacsUnavailable):
        sending.store(to(pacs, settings, pacs_timeout_s=0.5), OBJECTS)


def test_out_of_resources_is_worth_another_try_and_what_was_taken_is_kept(
    pacs: Pacs, settings: Settings
) -> None:
    pacs.answers = [(202, module({"1.2.1": 0xA700}, ("1.2.2",)))]
    with pytest.raises(sending.PacsUnavailable) as raised:
        sending.store(to(pacs, settings), OBJECTS)
    assert raised.value.refused == {"1.2.2": ""}


def test_nobody_answers_at_the_url(settings: Settings) -> None:
    nobody = dataclasses.replace(settings, pacs_url="http://127.0.0.1:9/dicom-web")
    with pytest.raises(sending.PacsUnavailable, match="does not answer"):
        sending.store(nobody, OBJECTS)


@pytest.mark.parametrize(
    "url", ["pacs.example", "ftp://pacs", "https://user:secret@pacs/", "https://pacs/?key=1"]
)
def test_a_url_that_cannot_be_a_service_stops_the_app(url: str) -> None:
    with pytest.raises(SettingError, match="SLICEWATCH_PACS_URL") as raised:
        load({"SLICEWATCH_PACS_URL": url})
    assert "secret" not in str(raised.value)


# --- what becomes of a study's results ----------------------------------------------------------


def test_each_object_is_sent_once_and_what_is_refused_is_said_and_left(
    pacs: Pacs, storage: Storage, settings: Settings, seed: int
) -> None:
    study = reported(storage, settings, studies.ct_series(4, seed=seed), marked([1, 2]))
    study.make()
    config = to(pacs, settings)
    instances = {
        name: str(pydicom.dcmread(io.BytesIO(data)).SOPInstanceUID)
        for name, data in study.files.items()
    }
    pacs.answers = [(503, b""), (202, module({instances["pr-1.dcm"]: 0x0122})), (500, b"")]
    assert delivery.reported(storage, config, study.study, 1).unsent == 2
    with pytest.raises(sending.PacsUnavailable):
        delivery.send(storage, config, study.study, 1)
    told = stored.standing(storage, study.study, 1)["objects"]
    assert {one["delivery"]["state"] for one in told} == {"waiting"}
    assert {one["delivery"]["reason"] for one in told} == {"it answers 503"}

    delivered = delivery.send(storage, config, study.study, 1)
    assert (delivered.sent, delivered.refused) == (1, 1)
    by_name = {one["name"]: one for one in stored.standing(storage, study.study, 1)["objects"]}
    assert by_name["sr.dcm"]["delivery"]["state"] == "sent"
    assert by_name["pr-1.dcm"]["delivery"]["state"] == "refused"
    assert "failure reason 0122" in by_name["pr-1.dcm"]["delivery"]["reason"]

    delivery.send(storage, config, study.study, 1)
    assert len(pacs.requests) == 2, "nothing waits, so nothing is sent"
    assert delivery.reported(storage, config, study.study, 1).unsent == 0
    lines = custody.of(storage, config).lines(study.study)
    entries = [custody_chain.parse(line).body for line in lines]
    (exported,) = [entry for entry in entries if entry["event"] == "exported"]
    assert list(exported["data"]["results"]) == ["1/sr.dcm"]
    assert exported["data"]["destination"] == "127.0.0.1"


@pytest.mark.skipif(not orthanc.IS_INSTALLED, reason=orthanc.REASON)
def test_orthanc_takes_the_results_and_gives_them_back_as_they_are(
    storage: Storage, settings: Settings, seed: int, tmp_path: Path
) -> None:
    study = reported(storage, settings, studies.ct_series(4, seed=seed), marked([1, 2]))
    study.make()
    with Orthanc(tmp_path, users={"slicewatch": "secret"}) as pacs:
        refused = to(pacs, settings, pacs_token="Basic d3Jvbmc6d3Jvbmc=")
        assert delivery.send(storage, refused, study.study, 1).refused == 2
        assert pacs.http.get("/dicom-web/studies").json() == []

        config = to(pacs, settings, pacs_token="Basic c2xpY2V3YXRjaDpzZWNyZXQ=")
        objects = {
            str(pydicom.dcmread(io.BytesIO(data)).SOPInstanceUID): data
            for data in study.files.values()
        }
        for _ in range(2):  # the same again changes nothing
            assert set(sending.store(config, objects).values()) == {""}
            assert len(pacs.instances(study.study)) == 2
        for uid, data in objects.items():
            sent = pydicom.dcmread(io.BytesIO(data))
            came = pydicom.dcmread(io.BytesIO(pacs.file(study.study, sent.SeriesInstanceUID, uid)))
            assert came == sent
