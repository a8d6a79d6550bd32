"""One image on demand: what is in it, and an alert only when it calls for one."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import azure.functions as func
import numpy as np
import pytest
from PIL import Image

from slicewatch import detector, model_registry
from slicewatch import settings as app_settings
from slicewatch import storage as app_storage
from slicewatch.settings import SettingError, Settings
from slicewatch.storage import Storage
from tests import studies
from tests.doors import body_of, function_of, request
from tests.identities import DEVELOPER
from tests.tiny_model import write_tiny_model
from triggers import detect


@pytest.fixture
def app(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Calls the door with these app settings; ``told`` collects the queues' messages."""
    write_tiny_model(tmp_path)
    registry = model_registry.Registry.load(tmp_path)
    told: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(model_registry, "current", lambda: registry)
    monkeypatch.setattr(app_storage, "current", lambda: storage)
    monkeypatch.setattr(
        storage, "enqueue", lambda queue, text: told.append((queue, json.loads(text)))
    )

    def call(body: bytes, query: str = "", *, json_body: bool = False, **env: str) -> Any:
        config = app_settings.load(
            {
                "AzureWebJobsStorage": "unused",
                "SLICEWATCH_DEVELOPMENT_IDENTITY": DEVELOPER,
                **env,
            }
        )
        monkeypatch.setattr(app_settings, "current", lambda: config)
        headers = {"Content-Type": "application/json" if json_body else "image/png"}
        asked = request("POST", "detect", body, headers=headers)
        if query:
            key, _, value = query.partition("=")
            asked = func.HttpRequest(
                "POST", asked.url, headers=headers, params={key: value}, body=body
            )
        return function_of(detect)(asked)

    call.told = told  # type: ignore[attr-defined]
    return call


def picture(kind: str = "PNG", *, bright: bool = True, deep: bool = False) -> bytes:
    """A dark picture, 128 x 96, with a bright square at x 40 to 72, y 30 to 62."""
    pixels = np.full((96, 128), 10, np.uint8)
    if bright:
        pixels[30:62, 40:72] = 250
    image = Image.fromarray(pixels.astype(np.uint16) * 257) if deep else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("body", [picture(), picture("JPEG"), picture(deep=True)])
def test_what_is_in_a_photograph_is_answered_in_its_pixels(app: Any, body: bytes) -> None:
    answer = body_of(app(body))
    assert answer["statusCode"] == 200
    seen = answer["body"]
    assert seen["objects_detected"] == 1
    assert seen["top_class"] == "bright_region"
    assert seen["detections"][0]["box"] == pytest.approx([40, 30, 72, 62], abs=4)
    assert seen["alert"] is False


def test_nothing_in_it_is_said_as_nothing(app: Any) -> None:
    seen = body_of(app(picture(bright=False)))["body"]
    assert (seen["objects_detected"], seen["top_class"], seen["detections"]) == (0, None, [])


def test_a_dicom_object_is_looked_at_by_the_model_that_fits_it(app: Any, seed: int) -> None:
    answer = app(studies.to_bytes(studies.ct_image(seed=seed)))
    assert body_of(answer)["body"]["model"] == "tiny-bright@1.0.0"


def test_every_frame_of_a_multi_frame_object_is_looked_at(app: Any, seed: int) -> None:
    data = studies.to_bytes(studies.enhanced_image(seed=seed))
    assert body_of(app(data))["body"]["frames"] > 1


@pytest.mark.parametrize(
    ("alerts", "expected"),
    [
        ("", False),
        ("bright_region:0.1", True),
        ("*:0.1", True),
        ("other:0.1", False),
        ("other:0.1, bright_region:0.2", True),
    ],
)
def test_an_alert_is_sent_when_its_class_and_score_are_met_and_only_then(
    app: Any, alerts: str, expected: bool
) -> None:
    answer = body_of(app(picture(), SLICEWATCH_ALERTS=alerts, SLICEWATCH_ALERT_QUEUE="guards"))
    assert answer["body"]["alert"] is expected
    assert [queue for queue, _ in app.told] == ["guards"] * expected


def test_an_alert_says_what_was_seen_and_where_the_image_is(app: Any, storage: Storage) -> None:
    storage.write("images", "door/1.png", picture())
    body = json.dumps({"blob": "images/door/1.png"}).encode()
    app(body, json_body=True, SLICEWATCH_ALERTS="*:0.1")
    _, message = app.told[0]
    assert message["source"] == "images/door/1.png"
    assert message["classes"] == {"bright_region": 1}


@pytest.mark.parametrize(
    ("reference", "status", "code"),
    [
        ({"blob": "images/none.png"}, 404, "no-such-blob"),
        ({"blob": "incoming/1/2/3.dcm"}, 403, "container-not-open"),
        ({"blob": "https://example.org/a.png"}, 400, "bad-reference"),
        ({"blob": "images"}, 400, "bad-reference"),
        ({"blob": 1}, 400, "bad-reference"),
        ({"blob": "images/../incoming/1/2/3.dcm"}, 400, "bad-reference"),
        ({"blob": "images\\../../incoming/3.dcm"}, 400, "bad-reference"),
        ({"blob": "images/door/."}, 400, "bad-reference"),
        ({"blob": "images/\ud800"}, 400, "bad-reference"),
        ({"url": "images/a.png"}, 400, "bad-reference"),
        ([], 400, "bad-reference"),
    ],
)
def test_only_blobs_of_open_containers_are_looked_at(
    app: Any, reference: object, status: int, code: str
) -> None:
    answer = app(json.dumps(reference).encode(), json_body=True)
    assert (answer.status_code, body_of(answer)["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "empty-body"),
        (b"GIF89a not taken", 415, "not-dicom"),
        (picture()[:60], 422, "decode-failed"),
        (picture("JPEG")[:200], 422, "decode-failed"),
    ],
)
def test_what_is_no_image_is_refused_with_its_reason(
    app: Any, body: bytes, status: int, code: str
) -> None:
    answer = app(body)
    assert (answer.status_code, body_of(answer)["error"]["code"]) == (status, code)


def test_objects_without_pixels_are_refused(app: Any, seed: int) -> None:
    answer = app(studies.to_bytes(studies.structured_report(seed=seed)))
    assert answer.status_code == 415


def test_a_picture_over_the_bound_is_refused_before_it_is_decoded(app: Any) -> None:
    answer = app(picture(), SLICEWATCH_MAX_FRAME_PIXELS="4096")
    assert answer.status_code == 413


def test_a_picture_over_every_bound_is_refused_as_it_is_opened(app: Any) -> None:
    size = struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0)
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", size), (b"IDAT", b""))
    ]
    answer = app(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    assert (answer.status_code, body_of(answer)["error"]["code"]) == (413, "too-large")


def test_an_unknown_model_is_named_with_those_there_are(app: Any) -> None:
    answer = app(picture(), "model=other")
    assert answer.status_code == 400
    assert "tiny-bright" in body_of(answer)["error"]["message"]


def test_the_model_stays_warm_between_calls(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    app(picture())
    loaded = dict(detector._loaded)
    app(picture())
    assert dict(detector._loaded) == loaded


@pytest.mark.parametrize("value", ["mass", "mass:", ":0.5", "mass:high", "mass:2", "a:0.5,,"])
def test_a_wrong_alert_rule_stops_the_app_with_its_name(value: str) -> None:
    with pytest.raises(SettingError, match="SLICEWATCH_ALERTS"):
        app_settings.load({"SLICEWATCH_ALERTS": value})


def test_alert_rules_are_read_from_the_setting() -> None:
    settings: Settings = app_settings.load({"SLICEWATCH_ALERTS": "mass:0.5, *:0.9"})
    assert settings.alerts == (("mass", 0.5), ("*", 0.9))
