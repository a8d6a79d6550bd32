"""A broken setting, policy or model: the host refuses to start and says which."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from demo.stack import ROOT
from tests.azurite import Azurite
from tests.tiny_model import write_tiny_model


def refusal(azurite: Azurite, **settings: str) -> str:
    """What the host says when it refuses to start with these settings."""
    ended = subprocess.run(
        [sys.executable, "-m", "local_host", "start", "--app", str(ROOT), "--port", "0"],
        cwd=ROOT,
        env={**os.environ, "AzureWebJobsStorage": azurite.connection_string, **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode not in (0, -9), ended.stdout
    assert "Listening" not in ended.stdout
    return ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("SLICEWATCH_BATCH_SIZE", "many"),
        ("SLICEWATCH_QUIET_SECONDS", "-1"),
        ("SLICEWATCH_DROPBOX_SOURCE", "Carrier Pigeon"),
        ("SLICEWATCH_DETECT_MODEL", "no-such-model"),
        ("SLICEWATCH_ALERT_QUEUE", "No Queue"),
    ],
)
def test_a_broken_setting_is_named(azurite: Azurite, setting: str, value: str) -> None:
    said = refusal(azurite, **{setting: value})
    assert setting in said
    assert repr(value) in said
    assert "expected" in said


def test_a_broken_policy_is_named_with_its_line_and_key(azurite: Azurite, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    text = (ROOT / "slicewatch" / "policies" / "default.toml").read_text()
    broken = text.replace('lane = "forensic"', 'lane = "forensics"', 1)
    policy.write_text(broken)
    line = broken[: broken.index('"forensics"')].count("\n") + 1
    said = refusal(azurite, SLICEWATCH_POLICY=str(policy))
    assert str(policy) in said
    assert re.search(rf"\b{line}\b", said), said
    assert "lane" in said


BROKEN_MODELS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a key with a wrong value": (
        "threshold",
        lambda toml: toml.write_text(toml.read_text().replace("threshold = 0.3", "threshold = 3")),
    ),
    "no weights": ("weights", lambda toml: toml.with_suffix(".onnx").unlink()),
}


@pytest.mark.parametrize("fault", BROKEN_MODELS)
def test_a_broken_model_is_named_with_its_key(azurite: Azurite, tmp_path: Path, fault: str) -> None:
    key, break_it = BROKEN_MODELS[fault]
    description = write_tiny_model(tmp_path)
    break_it(description)
    said = refusal(azurite, SLICEWATCH_MODELS=str(tmp_path))
    assert str(description) in said
    assert key in said


def test_a_folder_of_models_that_is_not_there_is_named(azurite: Azurite, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    assert str(missing) in refusal(azurite, SLICEWATCH_MODELS=str(missing))
