"""Frames: every transfer syntax, photometric interpretation and kind of object."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, uid
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_rescale
from pydicom.sequence import Sequence

from slicewatch.dicom import Frame, Limits, Rejected, read_frames
from slicewatch.records import Reason
from tests import studies

SHARED = Path(__file__).parents[2] / "shared" / "data" / "soft-tissue"


def decode(data: bytes) -> list[Frame]:
    return list(read_frames(data))


def only(data: bytes) -> Frame:
    (frame,) = read_frames(data)
    return frame


def twelve_bit_ct() -> Dataset:
    pixels = np.clip(studies.body_slice(), -1024, 2047)
    return studies.ct_image(pixels, bits_stored=12)


# --- transfer syntaxes --------------------------------------------------------------------------

KINDS: dict[str, Callable[[], Dataset]] = {
    "signed-16": studies.ct_image,
    "signed-12": twelve_bit_ct,
    "unsigned-12": studies.mr_image,
    "colour": studies.rgb_image,
    "palette": studies.palette_image,
    "enhanced": studies.enhanced_image,
    "loop": studies.ultrasound_loop,
}


# The encoder of this one takes gray only; selection value 1 covers colour.
NO_ENCODER = {("colour", "jpeg-lossless")}


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in KINDS for name in studies.LOSSLESS if (kind, name) not in NO_ENCODER],
)
def test_lossless_transfer_syntaxes_give_the_same_frames(kind: str, name: str) -> None:
    dataset = KINDS[kind]()
    plain = decode(studies.to_bytes(dataset))
    encoded = decode(studies.to_bytes(dataset, studies.LOSSLESS[name]))
    assert len(encoded) == len(plain) == int(dataset.get("NumberOfFrames", 1))
    for one, other in zip(plain, encoded, strict=True):
        np.testing.assert_array_equal(one.values, other.values)
        assert one.pixel_sha256 == other.pixel_sha256
        assert (one.voi, one.geometry) == (other.voi, other.geometry)


@pytest.mark.parametrize(
    ("name", "factory", "tolerance"),
    [
        ("jpeg-baseline", studies.rgb_image, 8),
        ("jpeg-baseline", studies.ultrasound_loop, 8),
        ("jpeg-extended", twelve_bit_ct, 8),
        ("jpeg-extended", studies.mr_image, 10),
        ("jpeg-ls-near", studies.ct_image, 2),
        ("jpeg-ls-near", twelve_bit_ct, 2),
        ("jpeg-2000-lossy", studies.ct_image, 25),
        ("jpeg-2000-lossy", studies.rgb_image, 3),
        ("htj2k-lossy", studies.ct_image, 60),
    ],
)
def test_lossy_transfer_syntaxes_stay_close(
    name: str, factory: Callable[[], Dataset], tolerance: float
) -> None:
    dataset = factory()
    plain = decode(studies.to_bytes(dataset))
    encoded = decode(studies.to_bytes(dataset, studies.LOSSY[name]))
    for one, other in zip(plain, encoded, strict=True):
        assert np.abs(one.values - other.values).max() <= tolerance
        assert one.pixel_sha256 != other.pixel_sha256


@pytest.mark.parametrize(
    ("extended_offsets", "offset_table"), [(True, True), (False, True), (False, False)]
)
def test_frames_are_found_by_any_offset_table(extended_offsets: bool, offset_table: bool) -> None:
    dataset = studies.enhanced_image(4)
    data = studies.to_bytes(
        dataset,
        uid.JPEG2000Lossless,
        extended_offsets=extended_offsets,
        offset_table=offset_table,
    )
    for one, other in zip(decode(studies.to_bytes(dataset)), decode(data), strict=True):
        np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.parametrize("offset_table", [True, False])
@pytest.mark.parametrize("frames", [1, 3])
def test_frames_in_several_fragments_are_joined(frames: int, offset_table: bool) -> None:
    dataset = studies.enhanced_image(frames)
    plain = decode(studies.to_bytes(dataset))
    encoded = [
        studies.encode_frame(frame, dataset, uid.JPEG2000Lossless)
        for frame in studies.native_frames(dataset)
    ]
    dataset.PixelData = encapsulate(encoded, fragments_per_frame=3, has_bot=offset_table)
    data = studies.to_bytes(dataset, uid.JPEG2000Lossless, encoded=True)
    for one, other in zip(plain, decode(data), strict=True):
        np.testing.assert_array_equal(one.values, other.values)


PYDICOM_FILES = [
    "693_J2KI.dcm",
    "CT_small.dcm",
    "ExplVR_BigEnd.dcm",
    "GDCMJ2K_TextGBR.dcm",
    "J2K_pixelrep_mismatch.dcm",
    "JPEG2000.dcm",
    "JPGExtended.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_expb.dcm",
    "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_padded.dcm",
    "SC_jpeg_no_color_transform.dcm",
    "SC_rgb_dcmtk_+eb+cr.dcm",
    "SC_rgb_gdcm_KY.dcm",
    "SC_rgb_jpeg_app14_dcmd.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "SC_rgb_rle_16bit_2frame.dcm",
    "SC_rgb_small_odd_big_endian.dcm",
    "examples_jpeg2k.dcm",
    "examples_overlay.dcm",
    "image_dfl.dcm",
]


@pytest.mark.parametrize("name", PYDICOM_FILES)
def test_other_writers_files_read_as_pydicom_reads_them(name: str) -> None:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    with warnings.catch_warnings(action="ignore"):
        dataset = pydicom.dcmread(path)
        expected = dataset.pixel_array
    if dataset.SamplesPerPixel == 3:
        expected = expected @ np.array([0.299, 0.587, 0.114])
    else:
        expected = apply_rescale(expected, dataset)
    actual = np.stack([frame.values for frame in decode(Path(path).read_bytes())])
    np.testing.assert_allclose(np.squeeze(actual), expected, rtol=1e-5, atol=1e-2)


# --- photometric interpretations ----------------------------------------------------------------


def test_monochrome1_is_inverted_and_its_window_with_it() -> None:
    plain = only(studies.to_bytes(studies.cr_image(photometric="MONOCHROME2")))
    inverted = only(studies.to_bytes(studies.cr_image()))
    np.testing.assert_array_equal(inverted.values, 1023 - plain.values)
    assert plain.voi is not None
    assert inverted.voi is not None
    ((centre, width),), ((mirrored, same),) = plain.voi.windows, inverted.voi.windows
    assert same == width
    # The same pixel has the same place in its window, counted from the other end (C.11.2.1.2.1).
    low, high = centre - 0.5 - (width - 1) / 2, mirrored - 0.5 + (width - 1) / 2
    assert 1023 - low == high
    assert plain.pixel_sha256 == inverted.pixel_sha256


def test_monochrome1_keeps_hounsfield_units() -> None:
    plain, negative = studies.ct_image(), studies.ct_image(PhotometricInterpretation="MONOCHROME1")
    one, other = only(studies.to_bytes(plain)), only(studies.to_bytes(negative))
    np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.parametrize("planar", [False, True])
def test_colour_becomes_luminance(planar: bool) -> None:
    dataset = studies.rgb_image(planar=planar)
    (pixels,) = studies.native_frames(studies.rgb_image())
    expected = pixels @ np.array([0.299, 0.587, 0.114])
    values = only(studies.to_bytes(dataset)).values
    np.testing.assert_allclose(values, expected, atol=1e-3)


def test_luminance_of_subsampled_colour_is_its_first_sample() -> None:
    expected = (np.arange(32 * 24) % 251).reshape(32, 24)
    values = only(studies.to_bytes(studies.ybr_422_image())).values
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("segmented", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_palette_colour_becomes_luminance(bits: int, segmented: bool) -> None:
    index = (np.arange(40 * 32) % 256).reshape(40, 32)
    expected = 0.299 * index + 0.587 * (255 - index) + 0.114 * 127.5
    values = only(studies.to_bytes(studies.palette_image(bits=bits, segmented=segmented))).values
    np.testing.assert_allclose(values, expected, atol=0.6)


def test_segments_may_repeat_earlier_ones() -> None:
    dataset = studies.palette_image(bits=16)
    # Two discrete entries, a line of two, and both once more from byte offset 0 (C.7.9.2.3).
    units = [0, 2, 100, 200, 1, 2, 400, 2, 2, 0, 0]
    for name in ("Red", "Green", "Blue"):
        del dataset[f"{name}PaletteColorLookupTableData"]
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [8, 0, 16])
        data = np.array(units, "<u2").tobytes()
        setattr(dataset, f"Segmented{name}PaletteColorLookupTableData", data)
    dataset.PixelData = bytes([0, 1, 2, 3, 4, 5, 6, 7] * 160)
    row = only(studies.to_bytes(dataset)).values.ravel()[:8]
    expected = np.array([100, 200, 300, 400, 100, 200, 300, 400]) / 257
    np.testing.assert_allclose(row, expected, rtol=1e-5)


# --- values -------------------------------------------------------------------------------------


def test_rescale_gives_modality_units() -> None:
    stored = (np.arange(96 * 80) % 4096).astype(np.uint16).reshape(96, 80)
    dataset = studies.ct_image(stored, bits_stored=12, RescaleSlope="0.5", RescaleIntercept="-1024")
    values = only(studies.to_bytes(dataset)).values
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, stored * 0.5 - 1024)


def test_modality_lut_replaces_rescale() -> None:
    dataset = studies.mr_image()
    stored = (np.arange(96 * 80) % 40).astype(np.uint16).reshape(96, 80)
    studies.set_pixels(dataset, stored, bits_stored=12)
    item = Dataset()
    item.LUTDescriptor = [16, 10, 16]
    item["LUTDescriptor"].VR = "US"
    item.ModalityLUTType = "US"
    item.LUTData = [1000 + 7 * entry for entry in range(16)]
    item["LUTData"].VR = "US"
    dataset.ModalityLUTSequence = Sequence([item])
    expected = 1000 + 7 * np.clip(stored.astype(int) - 10, 0, 15)
    np.testing.assert_array_equal(only(studies.to_bytes(dataset)).values, expected)


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32], ids=str
)
def test_integers_of_each_width_and_sign(dtype: type[np.integer]) -> None:
    info = np.iinfo(dtype)
    ends = np.array([info.min, info.max, 0, 1, info.max // 2, info.min // 2], dtype)
    pixels = np.resize(ends, (12, 16))
    dataset = studies.ct_image(pixels)
    values = only(studies.to_bytes(dataset)).values
    np.testing.assert_array_equal(values, pixels.astype(np.float32))


@pytest.mark.parametrize(("keyword", "dtype"), [("Float", np.float32), ("DoubleFloat", np.float64)])
def test_float_pixel_data(keyword: str, dtype: type[np.floating]) -> None:
    pixels = np.linspace(-3.5, 900.25, 12 * 16).astype(dtype).reshape(12, 16)
    dataset = studies.ct_image(np.zeros((12, 16), np.int16))
    del dataset["PixelData"]
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    setattr(dataset, f"{keyword}PixelData", pixels.tobytes())
    values = only(studies.to_bytes(dataset)).values
    np.testing.assert_array_equal(values, pixels.astype(np.float32))


def test_single_bit_frames_follow_without_a_gap() -> None:
    bits = np.random.default_rng(3).integers(0, 2, (3, 5, 7)).astype(np.uint8)
    dataset = studies.ultrasound_loop(3)
    dataset.Rows, dataset.Columns = 5, 7
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 0
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    dataset.PixelData = packed + bytes(len(packed) % 2)
    frames = decode(studies.to_bytes(dataset))
    np.testing.assert_array_equal(np.stack([frame.values for frame in frames]), bits)


def test_unused_bits_around_the_stored_ones_are_no_pixels() -> None:
    pixels = np.clip(studies.body_slice(), -1024, 2047).astype(np.int16)
    clean = only(studies.to_bytes(studies.ct_image(pixels, bits_stored=12)))
    dirty = studies.ct_image(pixels, bits_stored=12)
    words = np.frombuffer(dirty.PixelData, "<u2")
    dirty.PixelData = ((words & 0x0FFF) | 0xA000).tobytes()  # an old overlay
    np.testing.assert_array_equal(only(studies.to_bytes(dirty)).values, clean.values)
    shifted = studies.ct_image(pixels, bits_stored=12, HighBit=14)
    shifted.PixelData = (((words & 0x0FFF) << 3) | 0x8005).astype("<u2").tobytes()
    np.testing.assert_array_equal(only(studies.to_bytes(shifted)).values, clean.values)


def test_sign_survives_a_jpeg_ls_codestream_wider_than_the_bits_stored() -> None:
    import imagecodecs

    pixels = np.clip(studies.body_slice(), -1024, 2047).astype(np.int16)
    dataset = studies.ct_image(pixels, bits_stored=12)
    wide = imagecodecs.jpegls_encode((pixels & 0x0FFF).astype(np.uint16))  # precision 16
    dataset.PixelData = encapsulate([bytes(wide)])
    data = studies.to_bytes(dataset, uid.JPEGLSLossless, encoded=True)
    np.testing.assert_array_equal(only(data).values, pixels)


def test_pixel_hash_is_that_of_the_stored_values() -> None:
    pixels = studies.body_slice()
    frame = only(studies.to_bytes(studies.ct_image(pixels)))
    assert frame.pixel_sha256 == hashlib.sha256(pixels.astype("<i2").tobytes()).hexdigest()


# --- windows and geometry -----------------------------------------------------------------------


def test_windows_of_the_file() -> None:
    dataset = studies.ct_image(
        WindowCenter=["40", "-600"], WindowWidth=["400", "1500"], VOILUTFunction="SIGMOID"
    )
    voi = only(studies.to_bytes(dataset)).voi
    assert voi is not None
    assert voi.windows == ((40.0, 400.0), (-600.0, 1500.0))
    assert voi.function == "SIGMOID"


def voi_lut(first: int, entries: list[int]) -> Sequence:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, 16]
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    item.LUTData = entries
    item["LUTData"].VR = "US"
    return Sequence([item])


RISING = [0] * 50 + [round(n * 655.35) for n in range(101)] + [65535] * 40


@pytest.mark.parametrize(
    ("factory", "first"),
    [(studies.mr_image, 200), (studies.mr_image, 40_000), (studies.ct_image, -300)],
)
def test_voi_lut_becomes_the_window_that_it_spans(
    factory: Callable[[], Dataset], first: int
) -> None:
    dataset = factory()
    for keyword in ("WindowCenter", "WindowWidth"):
        dataset.pop(keyword, None)
    dataset.VOILUTSequence = voi_lut(first, RISING)
    voi = only(studies.to_bytes(dataset)).voi
    assert voi is not None
    ((centre, width),) = voi.windows
    assert centre == first + 100  # the middle of the rising part
    assert 90 <= width <= 100
    assert voi.function == "LINEAR_EXACT"


@pytest.mark.parametrize("entries", [[7] * 20, RISING[::-1]])
def test_voi_lut_that_no_window_resembles_is_left_out(entries: list[int]) -> None:
    dataset = studies.mr_image(VOILUTSequence=voi_lut(0, entries))
    assert only(studies.to_bytes(dataset)).voi is None


def test_damaged_voi_lut_loses_no_pixels() -> None:
    dataset = studies.mr_image(VOILUTSequence=voi_lut(0, RISING))
    dataset.VOILUTSequence[0].LUTData = [1, 2]
    assert only(studies.to_bytes(dataset)).voi is None


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian])
@pytest.mark.parametrize("undefined_lengths", [False, True])
def test_functional_groups_give_each_frame_its_place_and_units(
    syntax: str, undefined_lengths: bool
) -> None:
    dataset = studies.enhanced_image(4)
    if undefined_lengths:
        for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
            dataset[keyword].is_undefined_length = True
            for group in dataset[keyword].value:
                group.is_undefined_length_sequence_item = True
                for element in group:
                    element.is_undefined_length = True
    stored = studies.native_frames(dataset)
    frames = decode(studies.to_bytes(dataset, syntax))
    for index, frame in enumerate(frames):
        assert frame.number == index + 1
        np.testing.assert_array_equal(frame.values, stored[index] * (1.0 + index) - 1000 - index)
        assert frame.voi is not None
        assert frame.voi.windows == ((40.0 + index, 400.0),)
        assert frame.geometry.position == (-10.0, 2.5 * index, 30.0)
        assert frame.geometry.orientation == (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
        assert frame.geometry.spacing == (0.7, 0.9)
        assert frame.geometry.thickness == 2.5
        assert frame.geometry.frame_of_reference_uid == dataset.FrameOfReferenceUID


def test_geometry_of_a_slice() -> None:
    geometry = only(studies.to_bytes(studies.ct_image(number=7))).geometry
    assert geometry.position == (-40.0, -40.0, 21.0)
    assert geometry.orientation == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    assert (geometry.spacing, geometry.thickness) == ((0.8, 0.8), 3.0)


def test_frames_without_functional_groups_share_no_position() -> None:
    dataset = studies.set_plane(studies.ultrasound_loop(2), (1, 2, 3))
    for frame in decode(studies.to_bytes(dataset)):
        assert frame.geometry.position is None
        assert frame.geometry.spacing == (0.8, 0.8)


@pytest.mark.parametrize(
    ("keyword", "value", "field"),
    [
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0], "orientation"),
        ("ImageOrientationPatient", [0, 0, 0, 0, 1, 0], "orientation"),
        ("PixelSpacing", [0.0, 0.8], "spacing"),
        ("SliceThickness", 0, "thickness"),
        ("ImagePositionPatient", [1, 2], "position"),
    ],
)
def test_geometry_that_cannot_be_is_left_out(keyword: str, value: Any, field: str) -> None:
    dataset = studies.ct_image(**{keyword: value})
    assert getattr(only(studies.to_bytes(dataset)).geometry, field) is None


def test_optional_attributes_may_be_missing() -> None:
    dataset = studies.ct_image()
    optional = (
        "WindowCenter WindowWidth RescaleSlope RescaleIntercept PixelSpacing SliceThickness "
        "ImagePositionPatient ImageOrientationPatient FrameOfReferenceUID InstanceNumber "
        "PhotometricInterpretation SamplesPerPixel HighBit BitsStored PatientID StudyDate "
        "SpecificCharacterSet ImageType"
    )
    for keyword in optional.split():
        del dataset[keyword]
    frame = only(studies.to_bytes(dataset))
    np.testing.assert_array_equal(frame.values, studies.body_slice(seed=1))
    assert frame.voi is None
    assert frame.geometry.position is None


# --- refusals -----------------------------------------------------------------------------------


def refusal(data: bytes, limits: Limits | None = None) -> Rejected:
    with pytest.raises(Rejected) as caught:
        list(read_frames(data, limits or Limits()))
    return caught.value


def test_codestream_of_another_size_is_refused_before_it_is_decoded() -> None:
    dataset = studies.ct_image()
    huge: NDArray[np.int16] = np.zeros((640, 640), np.int16)
    encoded = studies.encode_frame(huge, dataset, uid.JPEG2000Lossless)
    dataset.PixelData = encapsulate([encoded])
    rejected = refusal(studies.to_bytes(dataset, uid.JPEG2000Lossless, encoded=True))
    assert rejected.reason is Reason.DECODE_FAILED
    assert "640×640×1" in rejected.detail
    assert "80×96×1" in rejected.detail


def test_codestream_of_countless_tiles_is_refused() -> None:
    dataset = studies.ct_image()
    frame = bytearray(studies.encode_frame(studies.body_slice(), dataset, uid.JPEG2000Lossless))
    frame[24:32] = (1).to_bytes(4) * 2  # XTsiz and YTsiz
    dataset.PixelData = encapsulate([bytes(frame)])
    rejected = refusal(studies.to_bytes(dataset, uid.JPEG2000Lossless, encoded=True))
    assert rejected.reason is Reason.TOO_LARGE
    assert "7680 tiles" in rejected.detail


def test_progressive_jpeg_is_refused() -> None:
    dataset = studies.ultrasound_loop(1)
    frame = studies.encode_frame(studies.native_frames(dataset)[0], dataset, uid.JPEGBaseline8Bit)
    dataset.PixelData = encapsulate([frame.replace(b"\xff\xc0", b"\xff\xc2", 1)])
    rejected = refusal(studies.to_bytes(dataset, uid.JPEGBaseline8Bit, encoded=True))
    assert rejected.reason is Reason.DECODE_FAILED
    assert "FFC2" in rejected.detail


CODED = ["jpeg-lossless", "jpeg-lossless-sv1", "jpeg-ls", "jpeg-2000", "htj2k", "rle"]


@pytest.mark.parametrize("name", CODED)
def test_codestream_that_ends_early_is_refused(name: str) -> None:
    dataset = studies.ct_image()
    frame = studies.encode_frame(studies.body_slice(), dataset, studies.LOSSLESS[name])
    dataset.PixelData = encapsulate([frame[: 2 * len(frame) // 3]])
    start = time.perf_counter()
    rejected = refusal(studies.to_bytes(dataset, studies.LOSSLESS[name], encoded=True))
    assert rejected.reason in {Reason.TRUNCATED, Reason.DECODE_FAILED}
    assert time.perf_counter() - start < 2  # a decoder that searches for the end takes 4 s


# JPEG and JPEG 2000 decoders conceal damage that leaves the structure whole.
@pytest.mark.parametrize("name", ["jpeg-ls", "htj2k"])
def test_damaged_codestream_is_refused(name: str) -> None:
    dataset = studies.ct_image()
    frame = bytearray(studies.encode_frame(studies.body_slice(), dataset, studies.LOSSLESS[name]))
    frame[200:1200] = bytes(1000)
    dataset.PixelData = encapsulate([bytes(frame)])
    rejected = refusal(studies.to_bytes(dataset, studies.LOSSLESS[name], encoded=True))
    assert rejected.reason is Reason.DECODE_FAILED


def test_run_length_bomb_stops_at_the_frame() -> None:
    dataset = studies.ultrasound_loop(1)
    bomb = b"\x81\x00" * 1_000_000  # 128 MB of zeros
    header = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56)
    dataset.PixelData = encapsulate([header + bomb])
    frame = only(studies.to_bytes(dataset, uid.RLELossless, encoded=True))
    assert not frame.values.any()


@pytest.mark.parametrize("missing", [1, 2, 40])
def test_missing_encapsulated_frames_are_noticed(missing: int) -> None:
    dataset = studies.enhanced_image(3)
    encoded = [
        studies.encode_frame(frame, dataset, uid.RLELossless)
        for frame in studies.native_frames(dataset)
    ]
    dataset.NumberOfFrames = 3 + missing
    dataset.PixelData = encapsulate(encoded)
    rejected = refusal(studies.to_bytes(dataset, uid.RLELossless, encoded=True))
    assert rejected.reason is Reason.TRUNCATED


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Rows": 0}, Reason.BAD_HEADER),
        ({"BitsAllocated": 12}, Reason.BAD_HEADER),
        ({"BitsStored": 17}, Reason.BAD_HEADER),
        ({"HighBit": 3}, Reason.BAD_HEADER),
        ({"SamplesPerPixel": 2}, Reason.BAD_HEADER),
        ({"PhotometricInterpretation": "CMYK"}, Reason.BAD_HEADER),
        ({"NumberOfFrames": -1}, Reason.BAD_HEADER),
        ({"Rows": 97}, Reason.TRUNCATED),
        ({"NumberOfFrames": 2}, Reason.TRUNCATED),
        ({"NumberOfFrames": 5000}, Reason.TOO_LARGE),
        ({"Rows": 65535, "Columns": 65535}, Reason.TOO_LARGE),
    ],
)
def test_contradictory_descriptions_are_refused(changes: dict[str, Any], reason: Reason) -> None:
    assert refusal(studies.to_bytes(studies.ct_image(**changes))).reason is reason


def test_bounds_are_the_callers() -> None:
    data = studies.to_bytes(studies.enhanced_image(5))
    assert refusal(data, Limits(max_frames=4)).reason is Reason.TOO_LARGE
    assert refusal(data, Limits(max_pixels_per_frame=40 * 32 - 1)).reason is Reason.TOO_LARGE
    assert refusal(data, Limits(max_decoded_bytes=40 * 32 * 2 * 5 - 1)).reason is Reason.TOO_LARGE
    assert refusal(data, Limits(max_bytes=len(data) - 1)).reason is Reason.TOO_LARGE
    assert refusal(data, Limits(max_elements=30)).reason is Reason.TOO_LARGE
    assert len(list(read_frames(data, Limits(max_frames=5, max_bytes=len(data))))) == 5


@pytest.mark.parametrize(
    ("written", "claimed"),
    [(uid.ExplicitVRLittleEndian, uid.JPEG2000), (uid.RLELossless, uid.ExplicitVRLittleEndian)],
)
def test_pixel_data_of_another_form_than_its_transfer_syntax(written: str, claimed: str) -> None:
    data = studies.to_bytes(studies.ct_image(), written)
    assert refusal(studies.with_transfer_syntax(data, claimed)).reason is Reason.BAD_HEADER


def test_unknown_transfer_syntax_is_refused_only_when_frames_are_wanted() -> None:
    data = studies.with_transfer_syntax(
        studies.to_bytes(studies.ultrasound_loop(), uid.RLELossless), "1.2.840.10008.1.2.4.100"
    )
    rejected = refusal(data)
    assert rejected.reason is Reason.UNSUPPORTED_TRANSFER_SYNTAX
    assert rejected.detail == "1.2.840.10008.1.2.4.100"


@pytest.mark.parametrize(
    "factory", [studies.structured_report, studies.rt_structure_set, studies.segmentation]
)
def test_objects_that_are_no_images_give_no_frames(factory: Callable[[], Dataset]) -> None:
    assert refusal(studies.to_bytes(factory())).reason is Reason.NOT_AN_IMAGE


def test_image_without_pixel_data() -> None:
    dataset = studies.ct_image()
    del dataset["PixelData"]
    assert refusal(studies.to_bytes(dataset)).reason is Reason.NO_PIXEL_DATA


# --- real data ----------------------------------------------------------------------------------

REAL = sorted(SHARED.glob("*/*/image"))[::3] if SHARED.is_dir() else []


@pytest.mark.parametrize("series", REAL, ids=lambda path: "-".join(path.parts[-3:-1]))
def test_real_series_read_as_pydicom_reads_them(series: Path) -> None:
    files = sorted(series.glob("*.dcm"))
    for file in files[:: max(1, len(files) // 4)]:
        with warnings.catch_warnings(action="ignore"):
            dataset = pydicom.dcmread(file)
        frame = only(file.read_bytes())
        expected = apply_rescale(dataset.pixel_array, dataset)
        np.testing.assert_allclose(frame.values, expected, rtol=1e-6)
        assert frame.geometry.position == tuple(map(float, dataset.ImagePositionPatient))
