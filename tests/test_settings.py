"""App settings are read once, cast, and loud when wrong; the README lists them all."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from slicewatch.settings import SettingError, Settings, connection_setting, load

ROOT = Path(__file__).resolve().parent.parent
NAMES = [f.metadata["name"] for f in dataclasses.fields(Settings)]


def test_without_any_variable_the_defaults_hold() -> None:
    assert load({}) == Settings()


def test_a_value_is_cast_to_its_type() -> None:
    settings = load({"SLICEWATCH_BATCH_SIZE": " 8 ", "SLICEWATCH_QUIET_SECONDS": "1.5"})
    assert (settings.batch_size, settings.quiet_s) == (8, 1.5)


def test_the_functions_storage_is_used_where_none_is_named() -> None:
    assert load({"AzureWebJobsStorage": "here"}).storage == "here"
    assert load({"AzureWebJobsStorage": "here", "SLICEWATCH_STORAGE": "there"}).storage == "there"
    assert load({"AzureWebJobsStorage": "here", "SLICEWATCH_STORAGE_ACCOUNT": "x"}).storage == ""


@pytest.mark.parametrize(
    ("name", "value", "cause"),
    [
        ("SLICEWATCH_BATCH_SIZE", "many", "expected a whole number"),
        ("SLICEWATCH_BATCH_SIZE", "0", "expected a value from 1 to 256"),
        ("SLICEWATCH_BATCH_SIZE", "2.5", "expected a whole number"),
        ("SLICEWATCH_QUIET_SECONDS", "soon", "expected a number"),
        ("SLICEWATCH_QUIET_SECONDS", "nan", "expected a value from"),
        ("SLICEWATCH_QUIET_SECONDS", "-1", "expected a value from"),
        ("SLICEWATCH_DROPBOX_SOURCE", "Pigeon", "LogsAndContainerScan, EventGrid"),
        ("SLICEWATCH_ALERT_QUEUE", "Alerts", "3 to 63 lower-case letters"),
        ("SLICEWATCH_ALERT_QUEUE", "two--hyphens", "single hyphens"),
        ("SLICEWATCH_ALERT_QUEUE", "ends-", "single hyphens"),
        ("SLICEWATCH_ALERT_QUEUE", "ab", "3 to 63"),
        ("SLICEWATCH_ALERT_QUEUE", 64 * "a", "3 to 63"),
    ],
)
def test_a_wrong_value_names_the_setting_and_what_is_expected(
    name: str, value: str, cause: str
) -> None:
    with pytest.raises(SettingError) as error:
        load({name: value})
    assert name in str(error.value)
    assert value in str(error.value)
    assert cause in str(error.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SLICEWATCH_QUITE_SECONDS", "SLICEWATCH_QUIET_SECONDS"),
        ("SLICEWATCH_BATCHSIZE", "SLICEWATCH_BATCH_SIZE"),
        ("slicewatch_models", "SLICEWATCH_MODELS"),
        ("SLICEWATCH_CLINICAL_SLA", "SLICEWATCH_CLINICAL_SLA_SECONDS"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_nearest_one(name: str, meant: str) -> None:
    with pytest.raises(SettingError, match=f"^{name} is no app setting; did you mean {meant}"):
        load({name: "1"})


def test_names_of_connections_and_of_other_programs_are_no_misspellings() -> None:
    others = ("SLICEWATCH_STORAGE__blobServiceUri", "SLICEWATCH_EDGE_KILLS", "PATH", "SLICE")
    assert load(dict.fromkeys(others, "x")) == Settings()


def test_settings_that_contradict_each_other_are_named() -> None:
    with pytest.raises(SettingError, match="SLICEWATCH_MAX_POLL_SECONDS"):
        load({"SLICEWATCH_POLL_SECONDS": "20"})


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_lists_the_setting(name: str) -> None:
    assert f"`{name}`" in (ROOT / "README.md").read_text("utf-8")


def test_the_description_for_azure_names_settings_and_functions_that_there_are() -> None:
    text = (ROOT / "infra" / "main.bicep").read_text("utf-8")
    named = re.findall(r"^ +(SLICEWATCH_\w+):", text, re.MULTILINE)
    assert len(named) >= 5
    settings = load(dict.fromkeys((name for name in named if "SOURCE" not in name), "x"))
    assert settings.storage_account_url == settings.custody_key == "x"
    events = (ROOT / "infra" / "events.bicep").read_text("utf-8")
    functions = re.findall(
        r"function: '(\w+)', prefix: '/blobServices/default/containers/(\w+)", events
    )
    assert functions == [("dropbox", "dropbox"), ("training_inbox", "training")]
    assert all((ROOT / "triggers" / f"{name}.py").exists() for name, _ in functions)


def test_triggers_name_the_account_that_holds_the_studies() -> None:
    assert connection_setting({}) == "AzureWebJobsStorage"
    assert connection_setting({"SLICEWATCH_STORAGE": "x"}) == "SLICEWATCH_STORAGE"
    assert connection_setting({"SLICEWATCH_STORAGE_ACCOUNT": "x"}) == "SLICEWATCH_STORAGE"


def test_no_setting_is_read_past_this_module() -> None:
    for folder in ("slicewatch", "triggers", "activities", "orchestrators"):
        for file in (ROOT / folder).rglob("*.py"):
            if file.name != "settings.py":
                text = file.read_text("utf-8")
                assert "os.environ" not in text, file
                assert "getenv" not in text, file
