"""Generated CT studies of a thigh, with a soft-tissue mass or as its clean twin.

They stand in where no real study may be used: in the demo, in tests, and as extra normal anatomy
in training. Same seed, same anatomy and noise; `lesions` alone decides whether a mass is there.
Volumes are (slices, rows, columns) in HU; slice 0 lies lowest, z grows towards the head.

Attenuation follows the usual values at 120 kVp: fat -100 HU, muscle 55 HU, sarcoma somewhat below
muscle with a necrotic core near water, marrow -20 HU, cortical bone above 1000 HU.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SPACING_MM = 0.9766
THICKNESS_MM = 3.27

AIR, FAT, MARROW, SKIN, MUSCLE, VESSEL, CORTEX = -1000.0, -100.0, -20.0, 20.0, 55.0, 45.0, 1200.0


@dataclass(frozen=True, slots=True)
class Phantom:
    """A generated volume.

    Attributes:
        hounsfield: (slices, rows, columns) int16, HU.
        lesion: bool mask of the same shape; all false in the clean twin.
    """

    hounsfield: NDArray[np.int16]
    lesion: NDArray[np.bool_]


def generate_phantom(
    *, seed: int, lesions: bool, slices: int = 40, rows: int = 192, columns: int = 192
) -> Phantom:
    """Generate a volume; the twin of the same seed differs only inside and around the mass."""
    if slices < 1 or rows < 64 or columns < 64:
        raise ValueError("a phantom has at least one slice of 64 x 64 pixels")
    rng = np.random.default_rng(seed)
    thigh = _Thigh(rng, slices, rows, columns)
    body = thigh.anatomy()
    lesion = thigh.add_mass(body) if lesions else np.zeros(body.shape, np.bool_)
    body = _blur(body) + thigh.noise
    return Phantom(np.clip(np.rint(body), -1024, 3071).astype(np.int16), lesion)


class _Thigh:
    """Shapes in mm around the image centre; every random number is drawn here, mass or not."""

    def __init__(self, rng: np.random.Generator, slices: int, rows: int, columns: int) -> None:
        self.shape = (slices, rows, columns)
        self.x = ((np.arange(columns) - (columns - 1) / 2) * SPACING_MM)[None, None, :]
        self.y = ((np.arange(rows) - (rows - 1) / 2) * SPACING_MM)[None, :, None]
        self.z = (np.arange(slices) * THICKNESS_MM)[:, None, None]
        half = min(rows, columns) * SPACING_MM / 2
        self.radius = half * rng.uniform(0.62, 0.8)
        self.aspect = rng.uniform(0.85, 1.1)
        self.taper = rng.uniform(-0.0012, 0.0012)
        self.centre = rng.uniform(-0.1, 0.1, 2) * half
        self.waves = rng.uniform(0.01, 0.035, 3), rng.uniform(0, 2 * np.pi, 3)
        self.fat = rng.uniform(8, 18)
        self.bone = rng.uniform(-0.15, 0.15, 2) * half
        self.bone_radius = rng.uniform(12, 16)
        self.seeds = rng.uniform(-1, 1, (13, 2)) * self.radius * 0.8
        self.drift = rng.uniform(-0.06, 0.06, (13, 2))
        self.tone = rng.normal(0, 3, 13)
        angle = rng.uniform(0, 2 * np.pi)
        self.mass_radius = rng.uniform(20, 30, 2) * self.radius / 70
        distance = self.bone_radius + self.mass_radius.max() + 3
        reach = max(self.radius - self.fat - self.mass_radius.max() * 0.8, 0)
        self.mass_centre = self.bone + np.array([np.cos(angle), np.sin(angle)]) * min(
            distance, reach
        )
        self.mass_depth = rng.uniform(25, 38)
        self.mass_tone = rng.uniform(24, 36)
        self.necrosis = rng.uniform(0.25, 0.5)
        self.lobes = rng.uniform(0.03, 0.1), rng.uniform(0, 2 * np.pi)
        self.noise = _noise(rng, self.shape)

    def anatomy(self) -> NDArray[np.float32]:
        x, y = self.x - self.centre[0], (self.y - self.centre[1]) / self.aspect
        distance, angle = np.hypot(x, y), np.arctan2(y, x)
        outline = self.radius * (1 + self.taper * (self.z - self.z.mean()))
        for order, (height, phase) in enumerate(zip(*self.waves, strict=True), start=2):
            outline = outline * (1 + height * np.sin(order * angle + phase))
        body = np.full(self.shape, AIR, np.float32)
        body[distance < outline] = SKIN
        body[distance < outline - 1.8] = FAT
        inside = distance < outline - self.fat
        muscle, septum = self._muscles()
        body = np.where(inside, np.where(septum, FAT + 40, muscle), body)
        body = self._add_bone(body)
        table = self.y + 0 * self.x + 0 * self.z - (self.radius * self.aspect + 14)
        return np.where((np.abs(table) < 1.5) & (body == AIR), 300, body).astype(np.float32)

    def _muscles(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Voronoi cells around seeds that drift along z, with fat where two cells meet."""
        nearest = np.full(self.shape, np.inf)
        second = np.full(self.shape, np.inf)
        tone = np.zeros(self.shape)
        for (sx, sy), (dx, dy), shade in zip(self.seeds, self.drift, self.tone, strict=True):
            along = self.z - self.z.mean()
            distance = np.hypot(self.x - sx - dx * along, self.y - sy - dy * along)
            closer = distance < nearest
            second = np.where(closer, nearest, np.minimum(second, distance))
            nearest = np.where(closer, distance, nearest)
            tone = np.where(closer, shade, tone)
        return MUSCLE + tone, second - nearest < 1.6

    def _add_bone(self, body: NDArray[np.float32]) -> NDArray[np.float32]:
        distance = np.hypot(self.x - self.bone[0], self.y - self.bone[1]) + 0 * self.z
        body = np.where(distance < self.bone_radius, CORTEX, body)
        body = np.where(distance < self.bone_radius * 0.55, MARROW, body)
        vessel = np.hypot(self.x - self.bone[0] - 24, self.y - self.bone[1] + 10) + 0 * self.z
        return np.where(vessel < 4.5, VESSEL, body).astype(np.float32)

    def add_mass(self, body: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Draw the mass into `body`, in place; bone and air stay."""
        x = (self.x - self.mass_centre[0]) / self.mass_radius[0]
        y = (self.y - self.mass_centre[1]) / self.mass_radius[1]
        z = (self.z - self.z.mean()) / self.mass_depth
        height, phase = self.lobes
        lobed = 1 + height * np.sin(4 * np.arctan2(y, x) + phase + 2 * z)
        reach = np.sqrt(x**2 + y**2 + z**2) / lobed
        mask = (reach < 1) & (body > AIR) & (body < 250)
        edge = mask & (reach > 0.94)
        body[mask] = self.mass_tone
        body[edge] = MUSCLE + 12
        body[mask & (reach < self.necrosis)] = 12
        return np.asarray(mask, np.bool_)


def _noise(rng: np.random.Generator, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Correlated noise of about 12 HU with the horizontal streaks of a low-dose scan."""
    grain = _blur(rng.normal(0, 1, shape).astype(np.float32))
    streaks = rng.normal(0, 1, shape).astype(np.float32)
    for shift in (1, 2, 4, 8):
        streaks = streaks + np.roll(streaks, shift, axis=2)
    mixed = grain / grain.std() + 0.6 * streaks / streaks.std()
    return np.asarray(12 * mixed / mixed.std(), np.float32)


def _blur(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """Binomial 3 x 3 blur of each slice, the edges repeated."""
    padded = np.pad(volume, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return np.asarray((rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 16, np.float32)


def generate_study(
    folder: Path,
    *,
    seed: int,
    lesions: bool,
    slices: int = 40,
    rows: int = 192,
    columns: int = 192,
) -> list[Path]:
    """Write a study of one CT series to `folder`, one file a slice.

    UIDs follow from the arguments alone (UUID-derived, PS3.5 section B.2), so a second call with
    the same arguments writes the same instances.

    Args:
        folder: is made where it does not exist.
        seed: of anatomy and noise.
        lesions: with a soft-tissue mass, or the clean twin of the same seed.
        slices, rows, columns: size of the volume.

    Returns:
        The files written, by position.
    """
    phantom = generate_phantom(
        seed=seed, lesions=lesions, slices=slices, rows=rows, columns=columns
    )
    folder.mkdir(parents=True, exist_ok=True)
    key = f"{seed}/{'mass' if lesions else 'clean'}/{slices}x{rows}x{columns}"
    files = []
    for index, plane in enumerate(phantom.hounsfield):
        path = folder / f"{index + 1:04d}.dcm"
        path.write_bytes(_instance(key, seed, index, plane))
        files.append(path)
    return files


def _uid(*parts: object) -> str:
    digest = hashlib.sha256("/".join(["slicewatch-phantom", *map(str, parts)]).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16])}"


def _instance(key: str, seed: int, index: int, plane: NDArray[np.int16]) -> bytes:
    """One CT Image Storage instance (PS3.3 section A.3), Explicit VR Little Endian."""
    import io

    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    rows, columns = plane.shape
    file = Dataset()
    file.SOPClassUID = CTImageStorage
    file.SOPInstanceUID = _uid(key, index)
    file.StudyInstanceUID = _uid(key, "study")
    file.SeriesInstanceUID = _uid(key, "series")
    file.FrameOfReferenceUID = _uid(key, "frame")
    file.PositionReferenceIndicator = ""
    file.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    file.PatientName, file.PatientID = "PHANTOM^THIGH", f"PHANTOM-{seed}"
    file.PatientBirthDate, file.PatientSex = "", "O"
    file.StudyDate, file.StudyTime = "20240102", "080000"
    file.SeriesDate, file.SeriesTime = "20240102", "080100"
    file.AcquisitionDate = file.ContentDate = "20240102"
    file.AcquisitionTime = file.ContentTime = f"0802{index // 60 % 60:02d}.{index % 60:02d}0000"
    file.StudyID, file.AccessionNumber, file.ReferringPhysicianName = "1", "", ""
    file.Modality, file.Manufacturer = "CT", "Slicewatch phantom"
    file.StudyDescription, file.SeriesDescription = "Generated phantom", "Thigh, soft tissue"
    file.BodyPartExamined, file.PatientPosition = "THIGH", "HFS"
    file.SeriesNumber, file.AcquisitionNumber, file.InstanceNumber = 1, 1, index + 1
    left, top = -(columns - 1) / 2 * SPACING_MM, -(rows - 1) / 2 * SPACING_MM
    file.ImagePositionPatient = [round(left, 4), round(top, 4), round(index * THICKNESS_MM, 4)]
    file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    file.PixelSpacing = [SPACING_MM, SPACING_MM]
    file.SliceThickness = THICKNESS_MM
    file.SliceLocation = round(index * THICKNESS_MM, 4)
    file.KVP = 120
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.Rows, file.Columns = rows, columns
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 0
    file.RescaleIntercept, file.RescaleSlope, file.RescaleType = -1024, 1, "HU"
    file.WindowCenter, file.WindowWidth = 40, 400
    stored = (plane.astype(np.int32) + 1024).astype("<u2")
    file.PixelData = stored.tobytes()
    file["PixelData"].VR = "OW"
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID
    out = io.BytesIO()
    file.save_as(out, enforce_file_format=True)
    return out.getvalue()
