"""Real DICOM objects and studies for the tests: written with pydicom, encoded with real codecs.

UIDs and pixels follow from the arguments alone, so the same call gives the same bytes.
`Dataset` factories give objects to alter; `to_bytes` writes them in any transfer syntax.
"""

from __future__ import annotations

import copy
import hashlib
import io
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmwrite, uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels.encoders.base import get_encoder
from pydicom.sequence import Sequence as ItemSequence

CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2.1"
MR_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR_STORAGE = "1.2.840.10008.5.1.4.1.1.4.1"
CR_STORAGE = "1.2.840.10008.5.1.4.1.1.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MULTI_FRAME_ULTRASOUND = "1.2.840.10008.5.1.4.1.1.3.1"
COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"
RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"

DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"

LOSSLESS: dict[str, str] = {
    "implicit": uid.ImplicitVRLittleEndian,
    "explicit": uid.ExplicitVRLittleEndian,
    "big-endian": uid.ExplicitVRBigEndian,
    "deflated": uid.DeflatedExplicitVRLittleEndian,
    "rle": uid.RLELossless,
    "jpeg-lossless": uid.JPEGLossless,
    "jpeg-lossless-sv1": uid.JPEGLosslessSV1,
    "jpeg-ls": uid.JPEGLSLossless,
    "jpeg-2000": uid.JPEG2000Lossless,
    "htj2k": uid.HTJ2KLossless,
    "htj2k-rpcl": uid.HTJ2KLosslessRPCL,
    "deflated-frames": DEFLATED_FRAMES,
}
LOSSY: dict[str, str] = {
    "jpeg-baseline": uid.JPEGBaseline8Bit,
    "jpeg-extended": uid.JPEGExtended12Bit,
    "jpeg-ls-near": uid.JPEGLSNearLossless,
    "jpeg-2000-lossy": uid.JPEG2000,
    "htj2k-lossy": uid.HTJ2K,
}


def new_uid(*parts: object) -> str:
    """A UID under 2.25 (PS3.5 annex B.2) that follows from `parts`."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


# --- pixels -------------------------------------------------------------------------------------


def body_slice(
    rows: int = 96, columns: int = 80, *, seed: int = 0, lesion: bool = False
) -> NDArray[np.int16]:
    """An axial slice in HU: air, soft tissue with noise, a soft bone; maybe a lesion, the
    only thing above the soft-tissue window."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    y, x = (y - rows / 2) / rows, (x - columns / 2) / columns
    image = np.full((rows, columns), -1000, np.float32)
    image[(x / 0.42) ** 2 + (y / 0.36) ** 2 < 1] = 40
    image[(x / 0.07) ** 2 + ((y - 0.2) / 0.07) ** 2 < 1] = 150
    if lesion:
        image[((x - 0.15) / 0.1) ** 2 + ((y + 0.08) / 0.1) ** 2 < 1] = 240
    return np.rint(image + rng.normal(0, 12, image.shape)).astype(np.int16)


# --- single-frame objects -----------------------------------------------------------------------


def base_object(
    sop_class: str, modality: str, *, seed: int = 0, series: int = 1, number: int = 1
) -> Dataset:
    """The modules that each object has: patient, study, series, SOP common."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = new_uid("instance", seed, series, number)
    dataset.StudyDate, dataset.StudyTime = "20240305", "101500"
    dataset.SeriesDate, dataset.SeriesTime = "20240305", f"1020{series % 60:02d}"
    dataset.ContentDate, dataset.ContentTime = "20240305", "102130.5"
    dataset.AccessionNumber = ""
    dataset.Modality = modality
    dataset.Manufacturer = "Slicewatch test factory"
    dataset.StudyDescription = "Generated"
    dataset.SeriesDescription = f"{modality} {series}"
    dataset.PatientName = "Test^Generated"
    dataset.PatientID = f"GEN-{seed}"
    dataset.PatientBirthDate, dataset.PatientSex = "19700101", "O"
    dataset.StudyInstanceUID = new_uid("study", seed)
    dataset.SeriesInstanceUID = new_uid("series", seed, series)
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "1", series, number
    return dataset


def set_pixels(
    dataset: Dataset,
    pixels: NDArray[Any],
    *,
    bits_stored: int | None = None,
    photometric: str = "MONOCHROME2",
) -> Dataset:
    """Fill the Image Pixel module from (rows, columns), (frames, …) or (…, 3) integers.

    (rows, columns, 3) is told from frames by `photometric`.
    """
    colour = photometric in ("RGB", "YBR_FULL", "YBR_RCT", "YBR_ICT")
    shape = pixels.shape[:-1] if colour else pixels.shape
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = photometric
    if colour:
        dataset.PlanarConfiguration = 0
    if len(shape) == 3:
        dataset.NumberOfFrames = shape[0]
    dataset.Rows, dataset.Columns = shape[-2:]
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored = bits_stored or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    dataset["PixelData"].VR = "OW" if dataset.BitsAllocated > 8 else "OB"
    return dataset


def set_plane(
    dataset: Dataset,
    position: Sequence[float],
    *,
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    spacing: Sequence[float] = (0.8, 0.8),
    thickness: float = 3.0,
) -> Dataset:
    """Fill the Image Plane and Frame of Reference modules."""
    dataset.ImagePositionPatient = list(map(float, position))
    dataset.ImageOrientationPatient = list(map(float, orientation))
    dataset.PixelSpacing = list(map(float, spacing))
    dataset.SliceThickness = thickness
    dataset.FrameOfReferenceUID = new_uid("frame of reference", dataset.StudyInstanceUID)
    return dataset


def ct_image(
    pixels: NDArray[Any] | None = None,
    *,
    seed: int = 0,
    series: int = 1,
    number: int = 1,
    position: Sequence[float] | None = None,
    bits_stored: int | None = None,
    **attributes: Any,
) -> Dataset:
    """A CT slice: signed 16 bit HU, axial, 3 mm apart by number; `attributes` by keyword."""
    dataset = base_object(CT_STORAGE, "CT", seed=seed, series=series, number=number)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.BodyPartExamined = "EXTREMITY"
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "HU"
    dataset.WindowCenter, dataset.WindowWidth = "40", "400"
    set_plane(dataset, position or (-40.0, -40.0, 3.0 * number))
    if pixels is None:
        pixels = body_slice(seed=1000 * seed + number)
    set_pixels(dataset, pixels, bits_stored=bits_stored)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def ct_series(
    slices: int = 12,
    *,
    seed: int = 0,
    series: int = 1,
    lesion: Iterable[int] = (),
    rows: int = 96,
    columns: int = 80,
    **attributes: Any,
) -> list[Dataset]:
    """A CT series in order of position; the slice numbers in `lesion` (from 1) show one."""
    marked = set(lesion)
    return [
        ct_image(
            body_slice(rows, columns, seed=100_000 * seed + 1000 * series + n, lesion=n in marked),
            seed=seed,
            series=series,
            number=n,
            **attributes,
        )
        for n in range(1, slices + 1)
    ]


def mr_image(*, seed: int = 0, series: int = 2, number: int = 1, **attributes: Any) -> Dataset:
    """An MR slice: unsigned, 12 bits stored, no rescale."""
    dataset = base_object(MR_STORAGE, "MR", seed=seed, series=series, number=number)
    dataset.ScanningSequence, dataset.SequenceVariant = "SE", "SK"
    set_plane(dataset, (-40.0, -40.0, 3.0 * number))
    pixels = np.clip(body_slice(seed=77 * seed + number) + 1000, 0, 4095).astype(np.uint16)
    set_pixels(dataset, pixels, bits_stored=12)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def cr_image(*, photometric: str = "MONOCHROME1", seed: int = 0) -> Dataset:
    """A radiograph, 10 bits of 16; MONOCHROME1 unless told otherwise."""
    dataset = base_object(CR_STORAGE, "CR", seed=seed, series=3)
    ramp = np.linspace(0, 1023, 64 * 48).reshape(64, 48).astype(np.uint16)
    dataset.WindowCenter, dataset.WindowWidth = "600", "400"
    return set_pixels(dataset, ramp, bits_stored=10, photometric=photometric)


def rgb_image(*, planar: bool = False, seed: int = 0) -> Dataset:
    """A colour secondary capture, 8 bit RGB."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:48, 0:40]
    pixels = np.stack([4 * x, 4 * y, 2 * (x + y)], -1) + rng.integers(0, 20, (48, 40, 1))
    pixels = pixels.astype(np.uint8)
    dataset = base_object(SECONDARY_CAPTURE, "OT", seed=seed, series=4)
    set_pixels(dataset, pixels, photometric="RGB")
    if planar:
        dataset.PlanarConfiguration = 1
        dataset.PixelData = np.moveaxis(pixels, -1, 0).tobytes()
    return dataset


def ybr_422_image(*, seed: int = 0) -> Dataset:
    """An uncompressed YBR_FULL_422 image: Y1 Y2 Cb Cr for two pixels."""
    luminance = (np.arange(32 * 24) % 251).astype(np.uint8).reshape(32, 24)
    packed = np.full((32, 12, 4), 128, np.uint8)
    packed[..., 0], packed[..., 1] = luminance[:, 0::2], luminance[:, 1::2]
    dataset = base_object(SECONDARY_CAPTURE, "US", seed=seed, series=4)
    set_pixels(dataset, luminance)
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.PixelData = packed.tobytes()
    return dataset


def palette_image(*, segmented: bool = False, bits: int = 16, seed: int = 0) -> Dataset:
    """PALETTE COLOR with 256 entries: red rises, green falls, blue is half."""
    pixels = (np.arange(40 * 32) % 256).astype(np.uint8).reshape(40, 32)
    dataset = base_object(SECONDARY_CAPTURE, "OT", seed=seed, series=4)
    set_pixels(dataset, pixels, photometric="PALETTE COLOR")
    top = 65535 if bits == 16 else 255
    ramps = {
        "Red": np.linspace(0, top, 256),
        "Green": np.linspace(top, 0, 256),
        "Blue": np.full(256, top // 2),
    }
    code = "<u2" if bits == 16 else "u1"
    for name, ramp in ramps.items():
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [256, 0, bits])
        dataset[f"{name}PaletteColorLookupTableDescriptor"].VR = "US"
        if segmented:
            first, last = int(np.rint(ramp[0])), int(np.rint(ramp[-1]))
            # One discrete entry, then a line to the last.
            data = np.array([0, 1, first, 1, 255, last], code).tobytes()
            setattr(dataset, f"Segmented{name}PaletteColorLookupTableData", data)
        else:
            data = np.rint(ramp).astype(code).tobytes()
            setattr(dataset, f"{name}PaletteColorLookupTableData", data)
    return dataset


# --- multi-frame objects ------------------------------------------------------------------------


def _item(**attributes: Any) -> ItemSequence:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return ItemSequence([item])


def enhanced_image(
    frames: int = 5, *, modality: str = "CT", seed: int = 0, series: int = 5
) -> Dataset:
    """Enhanced CT or MR: spacing and orientation shared; position, rescale and VOI a frame."""
    sop_class = ENHANCED_CT_STORAGE if modality == "CT" else ENHANCED_MR_STORAGE
    dataset = base_object(sop_class, modality, seed=seed, series=series)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.FrameOfReferenceUID = new_uid("frame of reference", dataset.StudyInstanceUID)
    shared = Dataset()
    shared.PixelMeasuresSequence = _item(PixelSpacing=[0.7, 0.9], SliceThickness=2.5)
    shared.PlaneOrientationSequence = _item(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    dataset.SharedFunctionalGroupsSequence = ItemSequence([shared])
    groups = []
    for n in range(frames):
        group = Dataset()
        group.FrameContentSequence = _item(InStackPositionNumber=n + 1, StackID="1")
        group.PlanePositionSequence = _item(ImagePositionPatient=[-10.0, 2.5 * n, 30.0])
        group.PixelValueTransformationSequence = _item(
            RescaleIntercept=str(-1000 - n), RescaleSlope=str(1 + n), RescaleType="HU"
        )
        group.FrameVOILUTSequence = _item(WindowCenter=str(40 + n), WindowWidth="400")
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = ItemSequence(groups)
    pixels = np.stack([body_slice(40, 32, seed=seed + n) for n in range(frames)]) + 1024
    return set_pixels(dataset, np.clip(pixels, 0, 4095).astype(np.uint16), bits_stored=12)


def ultrasound_loop(frames: int = 4, *, seed: int = 0) -> Dataset:
    """A multi-frame object without functional groups."""
    dataset = base_object(MULTI_FRAME_ULTRASOUND, "US", seed=seed, series=6)
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, 24, 32)).astype(np.uint8)
    return set_pixels(dataset, pixels)


# --- objects that are no images -----------------------------------------------------------------


def structured_report(*, seed: int = 0) -> Dataset:
    """A Comprehensive SR with one text item."""
    dataset = base_object(COMPREHENSIVE_SR, "SR", seed=seed, series=90)
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "UNVERIFIED"
    dataset.ContentSequence = _item(
        RelationshipType="CONTAINS", ValueType="TEXT", TextValue="Nothing of note."
    )
    return dataset


def rt_structure_set(*, seed: int = 0, references: Sequence[Dataset] = ()) -> Dataset:
    """An RTSTRUCT with one ROI, a square of 10 mm on each referenced slice."""
    dataset = base_object(RT_STRUCTURE_SET, "RTSTRUCT", seed=seed, series=91)
    dataset.StructureSetLabel = "Generated"
    dataset.StructureSetROISequence = _item(
        ROINumber=1,
        ROIName="GTV",
        ReferencedFrameOfReferenceUID=new_uid("frame of reference", dataset.StudyInstanceUID),
    )
    contours = []
    for slice_ in references:
        x, y, z = (float(value) for value in slice_.ImagePositionPatient)
        corners = [(x + 20, y + 20), (x + 30, y + 20), (x + 30, y + 30), (x + 20, y + 30)]
        contour = Dataset()
        contour.ContourGeometricType = "CLOSED_PLANAR"
        contour.NumberOfContourPoints = len(corners)
        contour.ContourData = [value for corner in corners for value in (*corner, z)]
        contours.append(contour)
    roi = Dataset()
    roi.ReferencedROINumber = 1
    roi.ContourSequence = ItemSequence(contours)
    dataset.ROIContourSequence = ItemSequence([roi])
    return dataset


def segmentation(*, seed: int = 0) -> Dataset:
    """A binary segmentation: pixel data of single bits that is no image."""
    dataset = base_object(SEGMENTATION, "SEG", seed=seed, series=92)
    set_pixels(dataset, np.zeros((16, 16), np.uint8))
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 0
    dataset.PixelData = bytes(32)
    return dataset


# --- writing ------------------------------------------------------------------------------------


def to_bytes(
    dataset: Dataset,
    syntax: str = uid.ExplicitVRLittleEndian,
    *,
    preamble: bytes = bytes(128),
    extended_offsets: bool = False,
    offset_table: bool = True,
    encoded: bool = False,
) -> bytes:
    """Write a Part 10 file in a transfer syntax, encoding uncompressed pixel data for it.

    `encoded` says that the pixel data is encapsulated already.
    """
    dataset = copy.deepcopy(dataset)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", "")
    meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "")
    meta.TransferSyntaxUID = uid.UID(syntax)
    meta.ImplementationClassUID = uid.UID("2.25.1")
    dataset.file_meta = meta
    dataset.preamble = preamble
    if syntax == uid.ExplicitVRBigEndian and "PixelData" in dataset:
        _swap(dataset)
    native = uid.UID(syntax) in (
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    )
    if not native and "PixelData" in dataset:
        if syntax == uid.JPEGBaseline8Bit and dataset.SamplesPerPixel == 3:
            dataset.PhotometricInterpretation = "YBR_FULL_422"  # as the encoder leaves it
        plain = [] if encoded else native_frames(dataset)
        frames = [encode_frame(frame, dataset, syntax) for frame in plain]
        if extended_offsets:
            dataset.PixelData, offsets, lengths = encapsulate_extended(frames)
            dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = offsets, lengths
        elif frames:
            dataset.PixelData = encapsulate(frames, has_bot=offset_table)
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    buffer = io.BytesIO()
    # pydicom does not know this transfer syntax yet, so one of the same length stands in.
    if syntax == DEFLATED_FRAMES:
        meta.TransferSyntaxUID = uid.JPEGLossless
    dcmwrite(buffer, dataset, enforce_file_format=True)
    written = buffer.getvalue()
    if syntax == DEFLATED_FRAMES:
        stand_in = uid.JPEGLossless.encode()
        return written.replace(stand_in, syntax.encode().ljust(len(stand_in), b"\0"), 1)
    return written


def with_transfer_syntax(data: bytes, syntax: str) -> bytes:
    """A file whose meta information claims another transfer syntax than it is written in."""
    tag = data.index(b"\x02\x00\x10\x00UI")
    length = int.from_bytes(data[tag + 6 : tag + 8], "little")
    value = syntax.encode() + bytes(len(syntax) % 2)
    return data[: tag + 6] + struct.pack("<H", len(value)) + value + data[tag + 8 + length :]


def _swap(dataset: Dataset) -> None:
    """Write words in big endian order; 8-bit pixels travel in words (OW) as scanners did."""
    for element in dataset:
        if element.keyword.endswith("PaletteColorLookupTableData"):
            element.value = np.frombuffer(element.value, "<u2").astype(">u2").tobytes()
    size = max(2, dataset.BitsAllocated // 8)
    data = dataset.PixelData + bytes(len(dataset.PixelData) % 2)
    dataset.PixelData = np.frombuffer(data, f"<u{size}").astype(f">u{size}").tobytes()
    dataset["PixelData"].VR = "OW"


def native_frames(dataset: Dataset) -> list[NDArray[Any]]:
    """The uncompressed frames of a dataset as arrays."""
    code = f"<{'ui'[dataset.PixelRepresentation]}{dataset.BitsAllocated // 8}"
    shape = [int(dataset.get("NumberOfFrames", 1)), dataset.Rows, dataset.Columns]
    if dataset.SamplesPerPixel == 3:
        shape.append(3)
    return list(np.frombuffer(dataset.PixelData, code).reshape(shape))


def encode_frame(frame: NDArray[Any], dataset: Dataset, syntax: str) -> bytes:
    """One frame as the transfer syntax wants it. Signed values go as the codec takes them."""
    bits = int(dataset.BitsStored)
    # JPEG and JPEG-LS know no sign: they carry the two's complement of the stored bits.
    bare = (frame.astype(np.int64) & ((1 << bits) - 1)).astype(f"u{frame.dtype.itemsize}")
    match uid.UID(syntax):
        case uid.RLELossless:
            return _rle(frame)
        case "1.2.840.10008.1.2.8.1":
            deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            return deflater.compress(frame.tobytes()) + deflater.flush()
        case uid.JPEGLossless:
            return bytes(imagecodecs.ljpeg_encode(bare, bitspersample=bits))
        case uid.JPEGLosslessSV1:
            return bytes(
                imagecodecs.jpeg8_encode(bare, lossless=True, predictor=1, bitspersample=bits)
            )
        case uid.JPEGBaseline8Bit:
            return bytes(imagecodecs.jpeg8_encode(bare.astype(np.uint8), level=95))
        case uid.JPEGExtended12Bit:
            return bytes(imagecodecs.jpeg8_encode(bare, level=95, bitspersample=12))
        case uid.JPEGLSLossless | uid.JPEGLSNearLossless:
            near = 2 if syntax == uid.JPEGLSNearLossless else 0
            return get_encoder(syntax).encode(
                bare.tobytes(), jls_error=near, **_image_pixel(dataset, signed=False)
            )
        case uid.JPEG2000Lossless:
            return bytes(imagecodecs.jpeg2k_encode(frame, level=0, codecformat="j2k"))
        case uid.JPEG2000:
            return bytes(imagecodecs.jpeg2k_encode(frame, level=85, codecformat="j2k"))
        case uid.HTJ2KLossless | uid.HTJ2KLosslessRPCL:
            return bytes(imagecodecs.htj2k_encode(frame, reversible=True, prog_order="RPCL"))
        case uid.HTJ2K:
            return bytes(imagecodecs.htj2k_encode(frame, level=0.0005, reversible=False))
    raise ValueError(f"no encoder for {syntax}")


def _image_pixel(dataset: Dataset, *, signed: bool) -> dict[str, Any]:
    """The Image Pixel module of one frame as pydicom's encoders take it."""
    return {
        "rows": dataset.Rows,
        "columns": dataset.Columns,
        "number_of_frames": 1,
        "samples_per_pixel": dataset.SamplesPerPixel,
        "photometric_interpretation": dataset.PhotometricInterpretation,
        "bits_allocated": dataset.BitsAllocated,
        "bits_stored": dataset.BitsStored,
        "pixel_representation": int(signed),
        "planar_configuration": 0,
    }


def _rle(frame: NDArray[Any]) -> bytes:
    """PS3.5 annex G, with PackBits of its own: runs of two and more, literals else."""
    planes = frame.reshape(*frame.shape[:2], -1)
    segments = []
    for sample in range(planes.shape[-1]):
        octets = np.ascontiguousarray(planes[..., sample]).view(np.uint8)
        octets = octets.reshape(frame.shape[0], -1, frame.dtype.itemsize)
        for byte in reversed(range(frame.dtype.itemsize)):
            rows = [pack_bits(bytes(row)) for row in octets[..., byte]]
            segment = b"".join(rows)
            segments.append(segment + bytes(len(segment) % 2))
    offsets = [64 + sum(map(len, segments[:index])) for index in range(len(segments))]
    return struct.pack("<16L", len(segments), *offsets, *[0] * (15 - len(offsets))) + b"".join(
        segments
    )


def pack_bits(row: bytes) -> bytes:
    packed = bytearray()
    position = 0
    while position < len(row):
        run = 1
        while (
            run < 128 and row[position : position + 1] == row[position + run : position + run + 1]
        ):
            run += 1
        if run > 1:
            packed += bytes([257 - run, row[position]])
            position += run
            continue
        end = position + 1
        while end < len(row) and end - position < 128 and row[end] != row[end - 1]:
            end += 1
        packed += bytes([end - position - 1]) + row[position:end]
        position = end
    return bytes(packed)


def study_bytes(
    slices: int = 12, *, seed: int = 0, lesion: Iterable[int] = (), others: bool = False
) -> dict[str, bytes]:
    """A CT study as files by SOP instance UID; `others` adds an SR and an RTSTRUCT."""
    series = ct_series(slices, seed=seed, lesion=lesion)
    objects = [*series]
    if others:
        objects += [structured_report(seed=seed), rt_structure_set(seed=seed, references=series)]
    return {dataset.SOPInstanceUID: to_bytes(dataset) for dataset in objects}
