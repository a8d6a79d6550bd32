"""A data set's description: what it says, what a model adds, what is wrong with it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicewatch.dataset_description import BadDescription, Description, completed, read
from slicewatch.model_registry import Registry
from tests.tiny_model import LABEL, NAME, SIZE

WHOLE = b"""\
classes = ["soft_tissue_mass", "glioma"]
size = 128
[intensities]
CT = "ct_brain"
"*" = "full_range"
"""


def test_a_whole_description_needs_no_model() -> None:
    found = completed(read(WHOLE), Registry((), ""), {})
    assert (found.classes, found.size) == (("soft_tissue_mass", "glioma"), 128)
    assert (found.intensity("CT"), found.intensity("MR")) == ("ct_brain", "full_range")
    assert Description.from_json(found.to_json()) == found


def test_a_model_gives_what_the_description_leaves_out(models: Registry) -> None:
    found = completed(read(b"size = 256"), models, {NAME: 3})
    assert (found.model, found.classes, found.size) == (NAME, (LABEL,), 256)
    assert (found.intensity("MR"), found.intensity("CT")) == ("mr_percentile", "ct_soft_tissue")
    assert completed(read(f'model = "{NAME}"'.encode()), models, {}).size == SIZE


@pytest.mark.parametrize(
    ("structure", "label"),
    [
        ("Soft Tissue Mass 1", "soft_tissue_mass"),
        ("left GLIOMA", "glioma"),
        ("GTV", None),  # of which of the two classes?
        ("Bladder", None),
    ],
)
def test_a_structure_is_of_the_class_in_its_name(structure: str, label: str | None) -> None:
    assert read(WHOLE).label_map().label(structure) == label


@pytest.mark.parametrize("structure", ["GTV_Mass_CT", "primary tumor", "lesion 2", "a tumour"])
def test_where_there_is_one_class_the_usual_names_are_of_it(structure: str) -> None:
    assert Description(classes=("sarcoma",)).label_map().label(structure) == "sarcoma"


def test_the_first_pattern_that_fits_says_the_class() -> None:
    found = read(WHOLE + b'[labels]\n"GTV-1*" = "glioma"\n"gtv*" = "soft_tissue_mass"\n')
    labels = [found.label_map().label(name) for name in ("GTV-12", "GTV", "xGTV", "glioma")]
    assert labels == ["glioma", "soft_tissue_mass", None, None]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (b"model = 3", "model: expected a name"),
        (b'classes = ["a b"]', "classes: expected different names"),
        (b'classes = ["a", "a"]', "classes: expected different names"),
        (b'classes = ["a"]', "it needs size and"),
        (b'model = "x"\n' + WHOLE, "both model and classes"),
        (b"size = 100", "size: expected a multiple of 32"),
        (b"size = true", "size: expected a multiple of 32"),
        (b"validation_share = 1.0", "validation_share: expected"),
        (b'[intensities]\nCT = "bright"', "intensities: expected presets of"),
        (b"[intensities]\nCT = [1]", "intensities: expected presets of"),
        (WHOLE + b'[labels]\n"x" = "other"', "'other' is none of the classes"),
        (b"\xff", "is no TOML"),
    ],
)
def test_a_fault_is_told_with_its_key(text: bytes, cause: str) -> None:
    with pytest.raises(BadDescription, match=cause):
        read(text)


def test_labels_of_classes_that_the_model_lacks_are_told(models: Registry) -> None:
    with pytest.raises(BadDescription, match="tiny-bright has no class bone"):
        completed(read(b'[labels]\n"x" = "bone"'), models, {NAME: 1})


_VALUES = st.recursive(
    st.sampled_from(["0", "3.5", "true", '"ct_brain"', '"a"', "1979-05-27", '""']),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
    max_leaves=4,
)


@given(
    st.dictionaries(
        st.sampled_from(["model", "classes", "size", "validation_share", "intensities", "labels"]),
        _VALUES | _VALUES.map(lambda value: f"{{x = {value}}}"),
    )
)
def test_whatever_it_holds_it_is_read_or_told_what_is_wrong(content: dict[str, str]) -> None:
    text = "\n".join(f"{key} = {value}" for key, value in content.items())
    with contextlib.suppress(BadDescription):
        found = read(text.encode())
        assert Description.from_json(found.to_json()) == found
