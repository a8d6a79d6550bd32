"""WADO-RS: what was stored comes back, described and shown as it is; each fault has its answer."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pydicom
import pytest
import requests
from dicomweb_client import DICOMwebClient
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom import Dataset, uid
from requests import HTTPError

from slicewatch import dicom_json, holdings, media_types, rendering, wado
from slicewatch import settings as app_settings
from slicewatch import storage as app_storage
from slicewatch.limits import DEFAULT_LIMITS
from slicewatch.settings import Settings
from slicewatch.storage import Storage
from slicewatch.transfer_syntaxes import NATIVE
from tests import studies
from tests.dicomweb_doors import URL, client, session, store

DOORS = (
    "wado_bulkdata",
    "wado_frames",
    "wado_frames_rendered",
    "wado_instance",
    "wado_instance_metadata",
    "wado_rendered",
    "wado_series",
    "wado_series_metadata",
    "wado_study",
    "wado_study_metadata",
)
ANY_SYNTAX = (("application/dicom", "*"),)


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


class Put:
    """Stores objects and names them as the client's methods want them."""

    def __init__(self, storage: Storage, settings: Settings) -> None:
        self._storage, self._settings = storage, settings

    def __call__(
        self, dataset: Dataset, syntax: str = uid.ExplicitVRLittleEndian, **how: Any
    ) -> tuple[bytes, tuple[str, str, str]]:
        data = studies.to_bytes(dataset, syntax, **how)
        store(self._storage, self._settings, data)
        return data, (
            dataset.StudyInstanceUID,
            dataset.SeriesInstanceUID,
            dataset.SOPInstanceUID,
        )


@pytest.fixture
def put(storage: Storage, settings: Settings) -> Put:
    return Put(storage, settings)


def path_of(uids: tuple[str, str, str]) -> str:
    return f"{URL}/studies/{uids[0]}/series/{uids[1]}/instances/{uids[2]}"


def code_of(answer: requests.Response) -> str:
    error = answer.json()["error"]
    assert error.keys() == {"code", "message", "remedy"}
    return str(error["code"])


def parts_of(answer: requests.Response) -> list[bytes]:
    boundary = answer.headers["Content-Type"].partition("boundary=")[2].encode()
    parts = answer.content.split(b"--" + boundary)
    assert parts[0] == b""
    assert parts[-1] == b"--\r\n"
    return [part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n") for part in parts[1:-1]]


# --- objects ------------------------------------------------------------------------------------


def test_a_client_retrieves_a_study_a_series_and_an_instance(
    web: DICOMwebClient, storage: Storage, settings: Settings, seed: int
) -> None:
    objects = studies.study_bytes(3, seed=seed, others=True)
    store(storage, settings, *objects.values())
    study = studies.new_uid("study", seed)
    assert {one.SOPInstanceUID for one in web.retrieve_study(study)} == set(objects)
    series = studies.new_uid("series", seed, 1)
    assert len(web.retrieve_series(study, series)) == 3
    wanted = next(iter(objects))
    assert web.retrieve_instance(study, series, wanted).SOPInstanceUID == wanted


@pytest.mark.parametrize("syntax", ["implicit", "big-endian", "deflated", "jpeg-2000", "rle"])
def test_bytes_come_back_unchanged_whatever_the_transfer_syntax(
    http: requests.Session, put: Put, seed: int, syntax: str
) -> None:
    data, uids = put(studies.ct_image(seed=seed), studies.LOSSLESS[syntax], preamble=b"x" * 128)
    for accept in (
        "*/*",
        'multipart/related; type="application/dicom"',
        'multipart/related; type="application/dicom"; transfer-syntax=*',
        f"multipart/related; type=application/dicom; transfer-syntax={studies.LOSSLESS[syntax]}",
    ):
        answer = http.get(path_of(uids), headers={"Accept": accept})
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith(
            'multipart/related; type="application/dicom"; boundary='
        )
        assert parts_of(answer) == [data]
    bare = http.get(path_of(uids), headers={"Accept": "application/dicom"})
    assert bare.content == data
    assert bare.headers["Content-Type"] == (
        f"application/dicom; transfer-syntax={studies.LOSSLESS[syntax]}"
    )


@pytest.mark.parametrize("syntax", ["implicit", "explicit", "big-endian"])
@pytest.mark.parametrize("with_meta", [True, False])
def test_what_came_without_preamble_comes_back_as_a_file(
    web: DICOMwebClient, storage: Storage, settings: Settings, seed: int,
    syntax: str, with_meta: bool,
) -> None:  # fmt: skip
    image = studies.ct_image(seed=seed)
    data = studies.to_bytes(image, studies.LOSSLESS[syntax])
    meta = pydicom.dcmread(io.BytesIO(data)).file_meta
    bare = data[132 if with_meta else 132 + 12 + meta.FileMetaInformationGroupLength :]
    store(storage, settings, bare)
    (found,) = web.retrieve_study(image.StudyInstanceUID)
    assert found.file_meta.TransferSyntaxUID == studies.LOSSLESS[syntax]
    assert found.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID
    assert found == pydicom.dcmread(io.BytesIO(data))


@pytest.mark.parametrize(
    "accept",
    [
        "image/png",
        'multipart/related; type="image/jpeg"',
        'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.1',
        'multipart/related; type="application/dicom"; q=0',
        "nonsense",
    ],
)
def test_what_cannot_be_given_as_it_is_accepted_is_406(
    http: requests.Session, put: Put, seed: int, accept: str
) -> None:
    _, uids = put(studies.ct_image(seed=seed), uid.JPEG2000Lossless)
    answer = http.get(path_of(uids), headers={"Accept": accept})
    assert answer.status_code == 406
    assert code_of(answer) == "not-acceptable"


def test_of_a_study_in_two_transfer_syntaxes_the_accepted_part_is_206(
    http: requests.Session, put: Put, seed: int
) -> None:
    data, uids = put(studies.ct_image(seed=seed, number=1))
    put(studies.ct_image(seed=seed, number=2), uid.RLELossless)
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.1'
    answer = http.get(f"{URL}/studies/{uids[0]}", headers={"Accept": accept})
    assert answer.status_code == 206
    assert parts_of(answer) == [data]


def test_of_two_objects_with_one_uid_the_first_is_the_instance(
    http: requests.Session, put: Put, seed: int
) -> None:
    first, uids = put(studies.ct_image(seed=seed))
    put(studies.ct_image(seed=seed, SeriesDescription="altered"))
    assert parts_of(http.get(f"{URL}/studies/{uids[0]}")) == [first]


@pytest.mark.parametrize(
    "suffix", ["", "/metadata", "/frames/1", "/rendered", "/bulkdata/7FE00010"]
)
def test_what_is_not_held_is_404_and_what_is_no_uid_400(
    http: requests.Session, suffix: str
) -> None:
    missing = http.get(path_of(("1.2.3", "1.2.4", "1.2.5")) + suffix)
    assert (missing.status_code, code_of(missing)) == (404, "not-held")
    for uids in (("1.2", "1.3", "a"), ("1.2", "%2e%2e", "1.4"), ("x", "1.3", "1.4")):
        bad = http.get(path_of(uids) + suffix)
        assert bad.status_code == 400
        assert code_of(bad).endswith("-uid")


def test_an_answer_over_the_bound_is_413_before_it_is_made(
    http: requests.Session, put: Put, app: pytest.MonkeyPatch, settings: Settings, seed: int
) -> None:
    _, uids = put(studies.ct_image(seed=seed))
    small = dataclasses.replace(settings, max_request_bytes=1024)
    app.setattr(app_settings, "current", lambda: small)
    for suffix in ("", "/metadata", "/frames/1", "/bulkdata/7FE00010"):
        answer = http.get(path_of(uids) + suffix)
        assert answer.status_code == 413
        assert "SLICEWATCH_MAX_REQUEST_BYTES" in answer.json()["error"]["remedy"]


# --- metadata -----------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", ["implicit", "explicit", "big-endian", "jpeg-ls"])
def test_metadata_say_what_the_object_says(
    web: DICOMwebClient, put: Put, seed: int, syntax: str
) -> None:
    dataset = studies.ct_image(seed=seed, PatientName="Ümit^Test=漢字^名")
    dataset.PerformedProcedureCodeSequence = [_code("A", "first"), _code("B", "second")]
    dataset.add_new(0x00091001, "OB", b"\x01\x02\x03\x04")
    data, uids = put(dataset, studies.LOSSLESS[syntax])
    (found,) = web.retrieve_study_metadata(uids[0])
    assert found["00083002"] == {"vr": "UI", "Value": [studies.LOSSLESS[syntax]]}
    said = Dataset.from_json({key: found[key] for key in found if key != "7FE00010"})
    original = pydicom.dcmread(io.BytesIO(data))
    for element in original:
        if element.tag not in (0x7FE00010, 0x00091001):
            assert said[element.tag].value == element.value, element.keyword
    assert found["00091001"]["InlineBinary"] == "AQIDBA=="
    assert found["7FE00010"]["BulkDataURI"] == f"{path_of(uids)}/bulkdata/7FE00010"


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "99TEST", meaning
    return item


def test_metadata_of_a_study_come_as_one_array_of_its_instances(
    web: DICOMwebClient, storage: Storage, settings: Settings, seed: int
) -> None:
    objects = studies.study_bytes(40, seed=seed, others=True)
    store(storage, settings, *objects.values())
    study = studies.new_uid("study", seed)
    found = web.retrieve_study_metadata(study)
    assert {one["00080018"]["Value"][0] for one in found} == set(objects)
    assert len(web.retrieve_series_metadata(study, studies.new_uid("series", seed, 1))) == 40


def test_large_binary_values_are_bulk_data_also_inside_sequences(
    http: requests.Session, put: Put, seed: int
) -> None:
    table = np.arange(4096, dtype="<u2")
    for syntax in (uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian):
        dataset = studies.ct_image(seed=seed, number=1 + (syntax != uid.ExplicitVRLittleEndian))
        item = Dataset()
        item.LUTDescriptor = [4096, 0, 16]
        written = table if syntax == uid.ExplicitVRLittleEndian else table.astype(">u2")
        item.add_new("LUTData", "OW", written.tobytes())
        dataset.VOILUTSequence = [item]
        _, uids = put(dataset, syntax)
        (found,) = http.get(f"{path_of(uids)}/metadata").json()
        address = found["00283010"]["Value"][0]["00283006"]["BulkDataURI"]
        assert address == f"{path_of(uids)}/bulkdata/00283010/0/00283006"
        assert parts_of(http.get(address)) == [table.tobytes()]
        bare = http.get(address, headers={"Accept": "application/octet-stream"})
        assert bare.content == table.tobytes()


@pytest.mark.parametrize("path", ["00100010", "7FE00011", "00283010/9/00283006", "x", "1/2"])
def test_a_path_without_bulk_data_is_404(
    http: requests.Session, put: Put, seed: int, path: str
) -> None:
    _, uids = put(studies.ct_image(seed=seed))
    answer = http.get(f"{path_of(uids)}/bulkdata/{path}")
    assert (answer.status_code, code_of(answer)) == (404, "no-such-bulk-data")


def test_a_value_that_json_cannot_hold_is_left_out_and_the_rest_stays(
    http: requests.Session, put: Put, seed: int
) -> None:
    dataset = studies.ct_image(seed=seed)
    dataset.add_new("ImagerPixelSpacing", "DS", "1")
    dataset.add_new("TableTopVerticalPosition", "FL", float("nan"))
    data, uids = put(dataset)
    store_again = data.replace(b"\x18\x00\x64\x11DS\x02\x001 ", b"\x18\x00\x64\x11DS\x02\x00xx")
    assert store_again != data
    found = dicom_json.metadata(dicom_json.read(store_again), "u")
    assert "00181164" not in found
    assert "0018115A" not in found
    assert found["00080018"]["Value"] == [uids[2]]
    assert http.get(f"{path_of(uids)}/metadata").status_code == 200


LARGE = np.zeros((256, 256), np.int16)


@pytest.mark.parametrize("syntax", studies.LOSSLESS)
@pytest.mark.parametrize("trailing", [False, True])
def test_the_beginning_of_an_object_gives_its_metadata_or_asks_for_the_rest(
    seed: int, syntax: str, trailing: bool
) -> None:
    dataset = studies.ct_image(LARGE, seed=seed)
    dataset.PerformedProcedureCodeSequence = [_code("A", "first")]
    if trailing:
        dataset.DataSetTrailingPadding = b"\0\1\2\3"
    data = studies.to_bytes(dataset, studies.LOSSLESS[syntax])
    whole = dicom_json.metadata(dicom_json.read(data), "u")
    assert ("FFFCFFFC" in whole) == trailing
    native = studies.LOSSLESS[syntax] in NATIVE and not syntax.startswith("deflated")
    for length in (*range(0, 4096, 97), len(data)):
        found = dicom_json.read_beginning(data[:length], len(data), DEFAULT_LIMITS)
        assert found is None or dicom_json.metadata(found, "u") == whole, length
    assert (found is not None) == (native and not trailing)


def test_metadata_of_native_images_need_their_beginnings_alone(
    web: DICOMwebClient,
    storage: Storage,
    settings: Settings,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = [studies.ct_image(LARGE, seed=seed, number=n + 1) for n in range(3)]
    syntaxes = (uid.ExplicitVRLittleEndian, uid.JPEGLSLossless, uid.ImplicitVRLittleEndian)
    stored = [studies.to_bytes(*pair) for pair in zip(images, syntaxes, strict=True)]
    store(storage, settings, *stored)
    whole: list[str] = []
    read = holdings.read

    def noted(storage: Storage, one: holdings.Held) -> bytes:
        whole.append(one.instance)
        return read(storage, one)

    monkeypatch.setattr(holdings, "read", noted)
    found = web.retrieve_series_metadata(images[0].StudyInstanceUID, images[0].SeriesInstanceUID)
    assert [one["00080018"]["Value"][0] for one in found] == sorted(
        image.SOPInstanceUID for image in images
    )
    assert whole == [images[1].SOPInstanceUID]


def test_metadata_come_as_json_alone(http: requests.Session, put: Put, seed: int) -> None:
    _, uids = put(studies.ct_image(seed=seed))
    address = f"{path_of(uids)}/metadata"
    xml = {"Accept": 'multipart/related; type="application/dicom+xml"'}
    assert http.get(address, headers=xml).status_code == 406
    for accept, given_as in (
        ("application/dicom+json", "application/dicom+json"),
        ("application/json", "application/json"),
        ("*/*", "application/dicom+json"),
    ):
        answer = http.get(address, headers={"Accept": accept})
        assert answer.headers["Content-Type"] == given_as


# --- frames -------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", studies.LOSSLESS)
def test_frames_are_the_stored_values_little_endian(
    web: DICOMwebClient, put: Put, seed: int, syntax: str
) -> None:
    pixels = studies.body_slice(seed=seed)
    _, uids = put(studies.ct_image(pixels, seed=seed), studies.LOSSLESS[syntax])
    (frame,) = web.retrieve_instance_frames(*uids, [1])
    assert bytes(frame) == pixels.astype("<i2").tobytes()


def test_frames_come_in_the_order_asked_for(web: DICOMwebClient, put: Put, seed: int) -> None:
    dataset = studies.ultrasound_loop(seed=seed, frames=4)
    _, uids = put(dataset, uid.RLELossless)
    frames = web.retrieve_instance_frames(*uids, [3, 1])
    stored = np.frombuffer(dataset.PixelData, np.uint8).reshape(4, -1)
    assert [bytes(frame) for frame in frames] == [stored[2].tobytes(), stored[0].tobytes()]


@pytest.mark.parametrize("syntax", ["explicit", "rle", "jpeg-ls", "jpeg-2000", "jpeg-baseline"])
def test_colour_frames_are_as_the_metadata_describe_them(
    web: DICOMwebClient, put: Put, seed: int, syntax: str
) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = 200, 40
    dataset = studies.base_object(studies.SECONDARY_CAPTURE, "OT", seed=seed)
    studies.set_pixels(dataset, pixels, photometric="RGB")
    _, uids = put(dataset, {**studies.LOSSLESS, **studies.LOSSY}[syntax])
    (found,) = web.retrieve_study_metadata(uids[0])
    assert found["00280004"]["Value"] == ["RGB"]
    assert found["00280006"]["Value"] == [0]
    (frame,) = web.retrieve_instance_frames(*uids, [1])
    shown = np.frombuffer(frame, np.uint8).reshape(16, 16, 3)
    assert np.abs(shown.astype(int) - pixels).max() <= (3 if syntax == "jpeg-baseline" else 0)


@pytest.mark.parametrize(
    ("frames", "status", "code"),
    [
        ("0", 400, "bad-frame-list"),
        ("a", 400, "bad-frame-list"),
        ("1,", 400, "bad-frame-list"),
        ("1-3", 400, "bad-frame-list"),
        ("-1", 400, "bad-frame-list"),
        ("1,1,1,1,1", 400, "bad-frame-list"),
        ("5", 404, "no-such-frame"),
        ("999999999", 404, "no-such-frame"),
        ("1,5", 404, "no-such-frame"),
    ],
)
def test_bad_ranges_of_frames_are_told(
    http: requests.Session, put: Put, seed: int, frames: str, status: int, code: str
) -> None:
    _, uids = put(studies.ultrasound_loop(seed=seed, frames=4))
    for suffix in ("", "/rendered"):
        answer = http.get(f"{path_of(uids)}/frames/{frames}{suffix}")
        assert (answer.status_code, code_of(answer)) == (status, code)


def test_frames_of_what_has_none_or_is_damaged_are_406(
    http: requests.Session, put: Put, storage: Storage, settings: Settings, seed: int
) -> None:
    _, report = put(studies.structured_report(seed=seed))
    image = studies.ct_image(seed=seed)
    data = bytearray(studies.to_bytes(image, uid.JPEGLSLossless))
    data[data.index(b"\xff\xd8\xff") + 2] = 0  # the codestream's header
    store(storage, settings, bytes(data))
    damaged = (image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID)
    for uids in (report, damaged):
        for suffix in ("/frames/1", "/rendered"):
            answer = http.get(path_of(uids) + suffix)
            assert (answer.status_code, code_of(answer)) == (406, "not-decodable")
        assert http.get(f"{path_of(uids)}/metadata").status_code == 200
    assert parts_of(http.get(path_of(damaged))) == [bytes(data)]


@pytest.mark.parametrize(
    "accept",
    [
        'multipart/related; type="image/jls"',
        "multipart/related; type=application/octet-stream; transfer-syntax=1.2.840.10008.1.2.4.70",
        "image/jpeg",
    ],
)
def test_frames_are_given_uncompressed_alone(
    http: requests.Session, put: Put, seed: int, accept: str
) -> None:
    _, uids = put(studies.ct_image(seed=seed), uid.JPEGLSLossless)
    answer = http.get(f"{path_of(uids)}/frames/1", headers={"Accept": accept})
    assert (answer.status_code, code_of(answer)) == (406, "not-acceptable")


@given(text=st.text(alphabet="0123456789,-. ", max_size=30), frames=st.integers(1, 20))
def test_a_frame_list_is_read_or_refused(text: str, frames: int) -> None:
    try:
        numbers = wado.frame_numbers(text, frames)
    except (wado.BadFrameList, wado.NoSuchFrame):
        return
    assert numbers
    assert all(1 <= number <= frames for number in numbers)
    assert ",".join(map(str, numbers)) == ",".join(str(int(part)) for part in text.split(","))


# --- rendered -----------------------------------------------------------------------------------


def picture_of(answer: requests.Response, kind: str = "image/png") -> Image.Image:
    assert answer.status_code == 200, answer.content
    assert answer.headers["Content-Type"] == kind
    return Image.open(io.BytesIO(answer.content))


def test_a_client_gets_a_picture(web: DICOMwebClient, put: Put, seed: int) -> None:
    _, uids = put(studies.ct_image(seed=seed))
    png = Image.open(io.BytesIO(web.retrieve_instance_rendered(*uids, media_types=("image/png",))))
    assert (png.format, png.mode, png.size) == ("PNG", "L", (80, 96))
    jpeg = Image.open(io.BytesIO(web.retrieve_instance_rendered(*uids)))
    assert jpeg.format == "JPEG"


def test_a_window_maps_its_range_to_black_and_white(
    http: requests.Session, put: Put, seed: int
) -> None:
    pixels = np.array([[-1000, 0, 50, 100, 1000]], np.int16)
    _, uids = put(studies.ct_image(pixels, seed=seed))

    def gray(window: str) -> list[int]:
        answer = http.get(
            f"{path_of(uids)}/rendered", params={"window": window}, headers={"Accept": "image/png"}
        )
        return list(np.asarray(picture_of(answer))[0])

    # PS3.3 section C.11.2.1.3.2, by hand: (x - c) / w + 0.5 of 255.
    assert gray("50,100,linear-exact") == [0, 0, 128, 255, 255]
    # Section C.11.2.1.2.1: ((x - (c - 0.5)) / (w - 1) + 0.5) of 255.
    assert gray("50,101,linear") == [0, 1, 129, 255, 255]
    assert gray("50,100,sigmoid") == [0, 30, 128, 225, 255]
    assert gray("50,101") == gray("50,101,linear")


def test_a_viewport_scales_crops_and_flips(http: requests.Session, put: Put, seed: int) -> None:
    pixels = np.zeros((40, 80), np.int16)
    pixels[:, 40:] = 1000
    _, uids = put(studies.ct_image(pixels, seed=seed))

    def shown(viewport: str) -> Any:
        answer = http.get(
            f"{path_of(uids)}/frames/1/rendered",
            params={"viewport": viewport, "window": "500,1000,linear-exact"},
            headers={"Accept": "image/png"},
        )
        return np.asarray(picture_of(answer))

    assert shown("200,200").shape == (100, 200), "the aspect is kept"
    assert shown("20,20").shape == (10, 20)
    assert (shown("40,40,40,0,40,40") == 255).all()
    assert (shown("40,40,0,0,40,40") == 0).all()
    assert (shown("80,40,,,-80,40")[:, :40] == 255).all()
    assert shown("80,40,,,,").shape == (40, 80)


def test_colour_stays_colour(http: requests.Session, put: Put, seed: int) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[..., 0] = 200
    dataset = studies.base_object(studies.SECONDARY_CAPTURE, "OT", seed=seed)
    studies.set_pixels(dataset, pixels, photometric="RGB")
    _, uids = put(dataset)
    answer = http.get(f"{path_of(uids)}/rendered", headers={"Accept": "image/png"})
    assert (np.asarray(picture_of(answer)) == pixels).all()


def test_one_frame_of_many_is_shown(http: requests.Session, put: Put, seed: int) -> None:
    dataset = studies.ultrasound_loop(seed=seed, frames=3)
    _, uids = put(dataset)
    frames = np.frombuffer(dataset.PixelData, np.uint8).reshape(3, 24, 32)
    for number in (1, 3):
        answer = http.get(
            f"{path_of(uids)}/frames/{number}/rendered",
            params={"window": "127.5,255,linear-exact"},
            headers={"Accept": "image/png"},
        )
        assert (np.asarray(picture_of(answer)) == frames[number - 1]).all()
    several = http.get(f"{path_of(uids)}/frames/1,2/rendered")
    assert (several.status_code, code_of(several)) == (400, "bad-frame-list")


@pytest.mark.parametrize(
    "query",
    [
        "window=40",
        "window=a,b,linear",
        "window=40,0,linear",
        "window=40,nan,linear",
        "window=40,400,cubic",
        "viewport=10",
        "viewport=0,10",
        "viewport=1e9,10",
        "viewport=10,10,0,0,81,96",
        "viewport=10,10,-1,0,10,10",
        "viewport=10,10,0,0,0,10",
        "quality=0",
        "quality=101",
        "quality=1.5",
    ],
)
def test_bad_parameters_are_told(http: requests.Session, put: Put, seed: int, query: str) -> None:
    _, uids = put(studies.ct_image(seed=seed))
    answer = http.get(f"{path_of(uids)}/rendered?{query}")
    assert (answer.status_code, code_of(answer)) == (400, "bad-rendering")


def test_quality_is_that_of_the_jpeg(http: requests.Session, put: Put, seed: int) -> None:
    _, uids = put(studies.ct_image(seed=seed))
    address = f"{path_of(uids)}/rendered"
    small, large = (len(http.get(f"{address}?quality={q}").content) for q in (5, 95))
    assert small < large / 2


@given(
    window=st.text(alphabet="0123456789,.-elinarxct", max_size=20),
    viewport=st.text(alphabet="0123456789,.-e", max_size=20),
    quality=st.text(alphabet="0123456789.-", max_size=5),
)
def test_any_parameters_are_read_or_refused(window: str, viewport: str, quality: str) -> None:
    try:
        found = rendering.parse(window, viewport, quality)
    except rendering.BadRendering:
        return
    assert 1 <= found.quality <= 100


# --- negotiation --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        ("", "image/jpeg"),
        ("image/png", "image/png"),
        ("image/*", "image/jpeg"),
        ("image/jpeg;q=0.5, image/png", "image/png"),
        ("image/jpeg;q=0.5, image/png;q=0.5", "image/jpeg"),
        ("text/html, image/png;q=0.1", "image/png"),
        ("image/", "image/jpeg"),
    ],
)
def test_the_best_accepted_media_type_is_chosen(header: str, chosen: str) -> None:
    assert media_types.accepted(header).choose((media_types.JPEG, media_types.PNG)) == chosen


def test_the_query_goes_before_the_header(http: requests.Session, put: Put, seed: int) -> None:
    _, uids = put(studies.ct_image(seed=seed))
    answer = http.get(
        f"{path_of(uids)}/rendered?accept=image/png&code=key", headers={"Accept": "image/jpeg"}
    )
    assert picture_of(answer).format == "PNG"


@given(st.text(max_size=200))
def test_any_accept_header_is_read(header: str) -> None:
    found = media_types.accepted(header)
    with contextlib.suppress(media_types.NotAcceptable):
        assert found.choose((media_types.JPEG,)) == media_types.JPEG


def test_a_client_is_told_of_a_refusal_as_an_http_error(web: DICOMwebClient) -> None:
    with pytest.raises(HTTPError, match="404"):
        web.retrieve_study_metadata("1.2.3.4")
