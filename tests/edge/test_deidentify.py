"""De-identification by the standard's table: what goes, what stays, what is replaced."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence

from edge.config import Deidentify
from edge.deidentify import Deidentifier, profile
from edge.pseudonyms import KeyTooShort, Pseudonyms
from edge.uploader import MustStay
from slicewatch.dicom import read_header
from tests import studies
from tests.edge.cloud import Cloud
from tests.edge.conftest import Files
from tests.edge.running_agent import Dcmtk, RunningAgent, wait_for

_KEY = b"0123456789abcdef0123456789abcdef"
_SECRETS = (b"Test^Generated", b"GEN-", b"19700101", b"Dr^House", b"SECRET", b"20240305")

_CELLS = {
    "uids": {"K"},
    "device": {"K", "C"},
    "institution": {"K"},
    "patient": {"K", "C"},
    "full_dates": {"K"},
    "modified_dates": {"C"},
    "descriptors": {"C"},
    "structured_content": {"C"},
    "graphics": {"C"},
}

type Clean = Callable[..., Dataset]
"""`clean(dataset, *options, burned_in=…)` gives the object as it would leave."""


@pytest.fixture
def pseudonyms(tmp_path: Path) -> Iterator[Pseudonyms]:
    table = Pseudonyms(_KEY, tmp_path / "pseudonyms.sqlite")
    yield table
    table.close()


@pytest.fixture
def clean(tmp_path: Path, pseudonyms: Pseudonyms) -> Clean:
    def apply(
        dataset: Dataset,
        *options: str,
        burned_in: Any = "refuse",
        syntax: str = "explicit",
        safe_private: tuple[str, ...] = (),
    ) -> Dataset:
        file = tmp_path / "object.dcm"
        file.write_bytes(studies.to_bytes(dataset, studies.LOSSLESS[syntax], preamble=b"x" * 128))
        config = Deidentify(
            tmp_path / "key", options, burned_in, ("US",), safe_private=safe_private
        )
        uid, data = Deidentifier(config, pseudonyms).apply(file)
        assert read_header(data).sop_instance_uid == uid
        assert Deidentifier(config, pseudonyms).apply(file) == (uid, data), "always the same"
        return pydicom.dcmread(io.BytesIO(data))

    return apply


def identified(**attributes: Any) -> Dataset:
    """A CT slice that says a lot about its patient."""
    dataset = studies.ct_image(seed=51, **attributes)
    dataset.ReferringPhysicianName = "Dr^House"
    dataset.InstitutionName = "SECRET clinic"
    dataset.StationName = "SECRET"
    dataset.DeviceSerialNumber = "SECRET-1"
    dataset.PatientComments = "SECRET"
    dataset.PatientSex, dataset.PatientAge = "F", "052Y"
    dataset.OtherPatientIDs = "SECRET"
    reference = Dataset()
    reference.ReferencedSOPClassUID = studies.CT_STORAGE
    reference.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
    reference.PatientName = "SECRET^Nested"
    dataset.ReferencedImageSequence = Sequence([reference])
    block = dataset.private_block(0x0029, "SECRET MAKER", create=True)
    block.add_new(0x10, "LO", "SECRET")
    dataset.add_new(0x60000022, "LO", "SECRET")
    dataset.add_new(0x60001500, "LO", "SECRET")
    dataset.add_new(0x60003000, "OW", b"SECRET")
    return dataset


def test_nothing_that_identifies_is_left_and_the_pixels_are_untouched(clean: Clean) -> None:
    before = identified()
    after = clean(before)
    buffer = io.BytesIO()
    after.save_as(buffer)
    for secret in _SECRETS:
        assert secret not in buffer.getvalue(), secret
    assert after.preamble == bytes(128)
    assert after.PixelData == before.PixelData
    assert after.Rows == before.Rows
    assert after.ImagePositionPatient == before.ImagePositionPatient
    assert after.StudyDate == ""
    assert not any(element.tag.is_private for element in after)
    assert after.SOPClassUID == before.SOPClassUID


def test_it_says_what_was_done_with_the_method_codes_of_the_standard(clean: Clean) -> None:
    after = clean(identified(), "device", "modified_dates")
    assert after.PatientIdentityRemoved == "YES"
    codes = [item.CodeValue for item in after.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113109", "113107"]
    assert after.LongitudinalTemporalInformationModified == "MODIFIED"


@pytest.mark.parametrize("syntax", ["implicit", "explicit", "deflated", "big-endian", "jpeg-ls"])
def test_every_transfer_syntax_stays_what_it_was(clean: Clean, syntax: str) -> None:
    after = clean(identified(), syntax=syntax)
    assert after.file_meta.TransferSyntaxUID == studies.LOSSLESS[syntax]
    assert "SECRET" not in str(after)


def test_uids_are_replaced_alike_everywhere_and_lead_back_on_site_only(
    clean: Clean, pseudonyms: Pseudonyms
) -> None:
    before = identified()
    after = clean(before)
    reference = after.ReferencedImageSequence[0]
    assert reference.ReferencedSOPInstanceUID == after.SOPInstanceUID != before.SOPInstanceUID
    assert reference.ReferencedSOPClassUID == studies.CT_STORAGE
    assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID
    second = clean(studies.ct_image(seed=51, number=2))
    assert second.StudyInstanceUID == after.StudyInstanceUID
    assert second.SOPInstanceUID != after.SOPInstanceUID
    assert second.PatientID == after.PatientID
    assert pseudonyms.inside("uid", after.SOPInstanceUID) == before.SOPInstanceUID
    assert pseudonyms.inside("patient", after.PatientID) == before.PatientID


def test_another_key_gives_other_names(tmp_path: Path, pseudonyms: Pseudonyms) -> None:
    other = Pseudonyms(_KEY[::-1], tmp_path / "other.sqlite")
    assert other.uid("1.2.3") != pseudonyms.uid("1.2.3")
    assert other.patient("", "P1") != pseudonyms.patient("", "P1")
    other.close()


def test_a_short_key_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(KeyTooShort, match="openssl rand -hex 32"):
        Pseudonyms(b"short", tmp_path / "table.sqlite")


def test_options_keep_what_they_name(clean: Clean) -> None:
    before = identified()
    assert clean(before, "uids").SOPInstanceUID == before.SOPInstanceUID
    assert clean(before, "device").DeviceSerialNumber == "SECRET-1"
    assert clean(before, "institution").InstitutionName == "SECRET clinic"
    patient = clean(before, "patient")
    assert (patient.PatientSex, patient.PatientAge) == ("F", "052Y")
    assert clean(before, "full_dates").StudyDate == before.StudyDate


def test_modified_dates_keep_the_distances_and_the_times(clean: Clean) -> None:
    before = identified()
    before.SeriesDate = "20240308"
    before.AcquisitionDateTime = "20240305101500.25"
    after = clean(before, "modified_dates")
    assert after.StudyDate != before.StudyDate
    assert after.StudyTime == before.StudyTime

    def day(text: str) -> int:
        import datetime

        return datetime.datetime.strptime(text[:8], "%Y%m%d").toordinal()

    assert day(after.SeriesDate) - day(after.StudyDate) == 3
    assert after.AcquisitionDateTime[8:] == "101500.25"
    assert day(after.AcquisitionDateTime) == day(after.StudyDate)


def test_of_descriptions_the_listed_words_stay_and_nothing_else(clean: Clean) -> None:
    before = identified()
    before.StudyDescription = "CT Thorax/Abdomen of Mrs. SECRET, born 1970-01-01 (T2 ax)"
    before.SeriesDescription = "SECRET 4711"
    before.PatientComments = "SECRET"
    assert "StudyDescription" not in clean(before)
    after = clean(before, "descriptors")
    assert after.StudyDescription == "CT Thorax Abdomen T2"
    assert "SeriesDescription" not in after, "nothing of it may stay: the basic profile's action"
    assert "SECRET" not in str(after)
    codes = [item.CodeValue for item in after.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113105"]


def test_of_a_report_the_structure_the_codes_and_the_numbers_stay(clean: Clean) -> None:
    report = studies.structured_report(seed=53)
    report.ContentSequence = Sequence(
        [
            content_item("TEXT", TextValue="SECRET has a lesion in the left kidney"),
            content_item("PNAME", PersonName="SECRET^Observer"),
            content_item("NUM", scheme="99SECRETS", meaning="SECRET size", NumericValue="12"),
        ]
    )
    report.ContentSequence[0].ContentSequence = Sequence(
        [content_item("TEXT", TextValue="SECRET, nested")]
    )
    assert not clean(report).ContentSequence
    after = clean(report, "structured_content")
    text, person, number = after.ContentSequence
    assert text.TextValue == "lesion in left kidney"
    assert text.ConceptNameCodeSequence[0].CodeMeaning == "Finding"
    assert text.ContentSequence[0].TextValue == "REMOVED"
    assert person.PersonName == "REMOVED"
    assert (number.NumericValue, number.ConceptNameCodeSequence[0].CodeMeaning) == (12, "REMOVED")
    assert "SECRET" not in str(after).replace("99SECRETS", "")


def content_item(kind: str, scheme: str = "DCM", meaning: str = "Finding", **value: Any) -> Dataset:
    """A content item (PS3.3 section C.17.3)."""
    item, name = Dataset(), Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = "121071", scheme, meaning
    item.ValueType, item.RelationshipType = kind, "CONTAINS"
    item.ConceptNameCodeSequence = Sequence([name])
    for keyword, one in value.items():
        setattr(item, keyword, one)
    return item


def test_of_graphics_the_shapes_stay_and_what_could_be_writing_goes(clean: Clean) -> None:
    def shape(kind: str, points: int) -> Dataset:
        graphic = Dataset()
        graphic.GraphicType, graphic.NumberOfGraphicPoints = kind, points
        graphic.GraphicData = [1.0, 2.0] * points
        return graphic

    text = Dataset()
    text.UnformattedTextValue = "SECRET"
    annotation = Dataset()
    annotation.TextObjectSequence = Sequence([text])
    annotation.GraphicObjectSequence = Sequence(
        [shape("CIRCLE", 2), shape("POLYLINE", 5), shape("POLYLINE", 200)]
    )
    before = identified()
    before.GraphicAnnotationSequence = Sequence([annotation])
    assert not clean(before).GraphicAnnotationSequence
    after = clean(before, "graphics")
    [kept] = after.GraphicAnnotationSequence
    assert [one.NumberOfGraphicPoints for one in kept.GraphicObjectSequence] == [2, 5]
    assert "TextObjectSequence" not in kept
    assert not after.group_dataset(0x6000), "an overlay is a picture: it goes whatever the options"
    assert "SECRET" not in str(after)


def test_private_attributes_stay_only_where_the_site_vouches_for_them(clean: Clean) -> None:
    before = identified()
    block = before.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "IS", "1000")
    block.add_new(0x0D, "LO", "SECRET")
    other = before.private_block(0x0019, "OTHER MAKER", create=True)
    other.add_new(0x0C, "LO", "SECRET")
    after = clean(before, "safe_private", safe_private=("SIEMENS MR HEADER:0019,0C",))
    private = [(element.tag, str(element.value)) for element in after if element.tag.is_private]
    assert private == [(0x00190010, "SIEMENS MR HEADER"), (0x0019100C, "1000")]


@pytest.mark.parametrize(
    ("said", "modality", "stays"),
    [("YES", "CT", True), ("NO", "US", False), (None, "US", True), (None, "CT", False)],
)
def test_text_that_may_be_burned_in_keeps_an_object_on_site(
    clean: Clean, said: str | None, modality: str, stays: bool
) -> None:
    dataset = identified(Modality=modality)
    if said:
        dataset.BurnedInAnnotation = said
    if stays:
        with pytest.raises(MustStay, match="burned into"):
            clean(dataset)
    else:
        clean(dataset)
    clean(dataset, burned_in="warn")


def test_the_table_is_the_standards() -> None:
    table = profile()
    assert len(table) > 600
    basics = {row["basic"] for row in table.values()}
    assert basics == {"X", "Z", "D", "U", "X/Z", "X/D", "Z/D", "X/Z/D", "X/Z/U*"}
    assert table[0x00100010]["basic"] == "Z"
    assert table[0x00080018] | {"uids": "K"} == table[0x00080018]
    assert table[0x00100040]["patient"] == "K"
    cells = {option: {row[option] for row in table.values()} - {""} for option in _CELLS}
    assert cells == _CELLS
    assert sum(row["descriptors"] == "C" for row in table.values()) == 139
    assert table[0x0040A730]["structured_content"] == table[0x00700001]["graphics"] == "C"


def test_a_study_goes_up_de_identified_and_its_close_has_the_new_names(
    tmp_path: Path, cloud: Cloud, dcmtk: Dcmtk, files: Files
) -> None:
    (tmp_path / "key").write_bytes(_KEY)
    deidentify = '[deidentify]\nkey_file = "key"\nburned_in_modalities = ["US"]\n'
    paths = files(3, seed=52) + files(1, seed=52, InstanceNumber=9, BurnedInAnnotation="YES")
    with RunningAgent(tmp_path, cloud.url, deidentify=deidentify) as agent:
        assert dcmtk.store(agent.port, paths)[0] == 0
        wait_for(lambda: cloud.closed, "the study is closed")
        assert agent.count("refused") == 1
        study, instances = cloud.closed[0]
        code, said = dcmtk.run(
            *(_python(), "-m", "edge", "resolve", study, "--config", agent.config)
        )
        assert (code, said.strip()) == (0, studies.new_uid("study", 52))
    assert study != studies.new_uid("study", 52)
    sent = {one.header.sop_instance_uid for one in cloud.objects.values()}
    assert sent <= set(instances or [])
    for one in cloud.objects.values():
        assert not any(secret in one.data for secret in _SECRETS)
    for private in ("pseudonyms.sqlite", "journal.sqlite"):
        assert (agent.spool / private).stat().st_mode & 0o077 == 0


def _python() -> str:
    import sys

    return sys.executable
