"""The registry: which model for which series, and errors that name file and key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slicewatch import model_registry, tags
from slicewatch import settings as app_settings
from slicewatch.dicom import read_header
from slicewatch.model_registry import ModelError, Registry
from slicewatch.settings import SettingError
from tests import studies
from tests.tiny_model import write_tiny_model


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Has the app start with these models, and the model for single images."""

    def start(folder: Path, detect_model: str = "") -> None:
        wanted = app_settings.load(
            {"SLICEWATCH_MODELS": str(folder), "SLICEWATCH_DETECT_MODEL": detect_model}
        )
        monkeypatch.setattr(app_settings, "current", lambda: wanted)
        model_registry.current.cache_clear()
        model_registry.check()

    yield start
    model_registry.current.cache_clear()


def test_an_empty_folder_of_models_is_said_loudly(
    app: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app(tmp_path)
    (told,) = caplog.records
    assert told.levelname == "WARNING"
    assert str(tmp_path) in told.getMessage()
    assert "every study will be not_screened" in told.getMessage()
    assert "SLICEWATCH_MODELS" in told.getMessage()


def test_the_model_for_single_images_must_be_there(
    app: Callable[..., None], description: Path
) -> None:
    app(description.parent, "tiny-bright")
    app(description.parent, "tiny-bright@1.0.0")
    with pytest.raises(SettingError, match=r"SLICEWATCH_DETECT_MODEL is 'other'.*: tiny-bright"):
        app(description.parent, "other")


@pytest.fixture
def description(tmp_path: Path) -> Path:
    """A sound description to break."""
    return write_tiny_model(tmp_path)


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def with_series(path: Path, blocks: str) -> Registry:
    text = path.read_text()
    path.write_text(text[: text.index("[[series]]")] + blocks)
    return Registry.load(path.parent)


def test_description_is_read_as_written(description: Path) -> None:
    (model,) = Registry.load(description.parent).models
    assert model.key == "tiny-bright@1.0.0"
    assert model.weights == description.with_suffix(".onnx")
    assert model.classes == ("bright_region",)
    assert (model.input_size, model.threshold, model.priority) == (64, 0.3, 1)


def test_series_get_the_model_and_the_preset_of_their_block(description: Path) -> None:
    registry = Registry.load(description.parent)
    ct = registry.choose(read_header(studies.to_bytes(studies.ct_image())).attributes)
    mr = registry.choose(read_header(studies.to_bytes(studies.mr_image())).attributes)
    assert ct is not None
    assert mr is not None
    assert (ct.intensity, mr.intensity) == ("ct_soft_tissue", "mr_percentile")
    assert registry.choose({"Modality": "US"}) is None
    assert registry.choose({}) is None


@pytest.mark.parametrize(
    ("condition", "text", "fits"),
    [
        ('"CT"', "CT", True),
        ('"CT"', "ct", True),
        ('"CT"', "PT", False),
        ('"CT"', "", False),
        ('["CT", "MR"]', "MR", True),
        ('["CT", "MR"]', "US", False),
        ('"PRIMARY"', "ORIGINAL\\PRIMARY\\AXIAL", True),
        ('"PRIM"', "ORIGINAL\\PRIMARY\\AXIAL", False),
        ('{matches = "(?i)brain|head"}', "T1 BRAIN post", True),
        ('{matches = "brain"}', "T1 BRAIN post", False),
        ('{matches = "^$"}', "", True),
        ("{absent = true}", "", True),
        ("{absent = true}", "x", False),
        ("{absent = false}", "x", True),
        ("{absent = false}", "", False),
        ('{not = "LOCALIZER"}', "ORIGINAL\\PRIMARY\\LOCALIZER", False),
        ('{not = "LOCALIZER"}', "ORIGINAL\\PRIMARY", True),
        ('{not = "LOCALIZER"}', "", True),
        ('{not = ["A", "B"]}', "B", False),
        ('{not = {matches = "(?i)knee"}}', "Left Knee", False),
        ('{not = {matches = "(?i)knee"}}', "Hip", True),
    ],
)
def test_conditions(description: Path, condition: str, text: str, fits: bool) -> None:
    registry = with_series(description, f"[[series]]\nSeriesDescription = {condition}\n")
    attributes = {"SeriesDescription": text} if text else {}
    assert (registry.choose(attributes) is not None) == fits


def test_all_keys_of_a_block_must_fit_and_any_block_may(description: Path) -> None:
    registry = with_series(
        description,
        '[[series]]\nModality = "MR"\nBodyPartExamined = "BRAIN"\n[[series]]\nModality = "CT"\n',
    )
    assert registry.choose({"Modality": "MR"}) is None
    assert registry.choose({"Modality": "MR", "BodyPartExamined": "BRAIN"}) is not None
    assert registry.choose({"Modality": "CT"}) is not None


def test_highest_priority_is_chosen(tmp_path: Path) -> None:
    for name, priority in (("a", 1), ("b", 7), ("c", 7), ("d", -2)):
        write_tiny_model(tmp_path, name=name, priority=priority)
    registry = Registry.load(tmp_path)
    assert [model.name for model in registry.models] == ["b", "c", "a", "d"]
    choice = registry.choose({"Modality": "CT"})
    assert choice is not None
    assert choice.model.name == "b"


def test_digest_follows_the_descriptions_and_weights_alone(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "one")
    first = write_tiny_model(tmp_path / "two")
    digest = Registry.load(tmp_path / "one").digest
    assert digest == Registry.load(tmp_path / "two").digest
    first.write_text(first.read_text() + '\n[about]\nrule = "for people"\n# and a comment\n')
    assert digest == Registry.load(tmp_path / "two").digest
    rewrite(first, "threshold = 0.3", "threshold = 0.31")
    assert digest != Registry.load(tmp_path / "two").digest


def test_folder_without_models_covers_nothing(tmp_path: Path) -> None:
    registry = Registry.load(tmp_path)
    assert registry.models == ()
    assert registry.choose({"Modality": "CT"}) is None


def test_every_attribute_of_the_table_can_be_asked_for(description: Path) -> None:
    for keyword in tags.MODEL_SELECTION:
        with_series(description, f'[[series]]\n{keyword} = "x"\n')


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('name = "tiny-bright"', 'name = "Tiny Bright"', "name"),
        ('name = "tiny-bright"\n', "", "name"),
        ('version = "1.0.0"', "version = 1", "version"),
        ('version = "1.0.0"', 'version = "1@2"', "version"),
        ('weights = "tiny-bright.onnx"', 'weights = "missing.onnx"', "weights"),
        ('weights = "tiny-bright.onnx"', 'weights = "../tiny-bright.onnx"', "weights"),
        ('weights = "tiny-bright.onnx"', 'weights = "tiny-bright.zip"', "weights"),
        ('sha256 = "', 'sha256 = "x', "sha256"),
        ('classes = ["bright_region"]', "classes = []", "classes"),
        ('classes = ["bright_region"]', 'classes = ["a", "a"]', "classes"),
        ('classes = ["bright_region"]', 'classes = "a"', "classes"),
        ("input_size = 64", "input_size = 100", "input_size"),
        ("input_size = 64", "input_size = true", "input_size"),
        ("threshold = 0.3", "threshold = 30", "threshold"),
        ("threshold = 0.3", 'threshold = "0.3"', "threshold"),
        ('intensity = "ct_soft_tissue"', 'intensity = "ct_liver"', "intensity"),
        ("priority = 1", 'priority = "high"', "priority"),
        ("priority = 1", "priority = 1\nmodality = 3", "modality"),
        ('[[series]]\nModality = "CT"', "[[series]]", "series[1]"),
        ('Modality = "CT"', "Modality = 3", "series[1].Modality"),
        ('Modality = "CT"', "Modality = []", "series[1].Modality"),
        ('Modality = "CT"', "Modality = {absent = 1}", "series[1].Modality"),
        ('Modality = "CT"', 'Modality = {matches = "("}', "series[1].Modality"),
        ('Modality = "CT"', 'Modality = {like = "CT"}', "series[1].Modality"),
        ('Modality = "CT"', "Modality = {not = {absent = true}}", "series[1].Modality"),
        ('Modality = "CT"', 'Modalty = "CT"', "series[1].Modalty"),
        ('intensity = "mr_percentile"', 'intensity = "x"', "series[2].intensity"),
    ],
)
def test_fault_names_file_and_key(description: Path, old: str, new: str, key: str) -> None:
    rewrite(description, old, new)
    with pytest.raises(ModelError) as caught:
        Registry.load(description.parent)
    assert caught.value.key == key
    assert str(caught.value).startswith(f"{description}: {key}: ")


def test_broken_toml_names_file_and_line(description: Path) -> None:
    rewrite(description, "threshold = 0.3", "threshold = ")
    with pytest.raises(ModelError, match=r"tiny-bright\.toml: .*line 7"):
        Registry.load(description.parent)


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    write_tiny_model(tmp_path, name="b")
    description = write_tiny_model(tmp_path, name="a")
    rewrite(description, 'name = "a"', 'name = "b"')
    with pytest.raises(ModelError, match=r"a\.toml.* has the same name"):
        Registry.load(tmp_path)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        Registry.load(tmp_path / "nowhere")
