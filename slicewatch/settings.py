"""Every app setting: read once a process, cast, and loud when wrong.

An app setting is an environment variable (``local.settings.json`` on a laptop). The field's
metadata holds its name and its description; the configuration table of the README is made of
them.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from slicewatch.setting_values import (
    CONTAINER_NAME,
    SERVICE_URL,
    SettingError,
    alert_rules,
    cast,
    check_names,
    container_names,
    setting,
)

__all__ = ["SettingError", "Settings", "connection_setting", "current", "load"]

_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Settings:
    """The app settings; times in seconds, sizes in bytes."""

    # --- storage
    storage: str = setting(
        "SLICEWATCH_STORAGE",
        "",
        "connection string of the storage account that holds studies and reviews; "
        "empty: the one of AzureWebJobsStorage",
    )
    storage_account_url: str = setting(
        "SLICEWATCH_STORAGE_ACCOUNT",
        "",
        "name of the storage account, reached with the app's managed identity instead of a "
        "connection string",
    )
    storage_timeout_s: float = setting(
        "SLICEWATCH_STORAGE_TIMEOUT_SECONDS",
        20.0,
        "how long one storage operation is retried before it counts as unreachable",
        low=1,
        high=300,
    )
    # --- what may arrive
    max_object_bytes: int = setting(
        "SLICEWATCH_MAX_OBJECT_BYTES", 1 << 30, "largest DICOM object that is accepted", low=1024
    )
    max_request_bytes: int = setting(
        "SLICEWATCH_MAX_REQUEST_BYTES", 1 << 30, "largest request body", low=1024
    )
    max_frame_pixels: int = setting(
        "SLICEWATCH_MAX_FRAME_PIXELS", 64_000_000, "rows × columns bound of one frame", low=4096
    )
    max_frames: int = setting(
        "SLICEWATCH_MAX_FRAMES", 4096, "bound on the frames of one object", low=1
    )
    max_decoded_bytes: int = setting(
        "SLICEWATCH_MAX_DECODED_BYTES",
        4 << 30,
        "rows × columns × samples × bytes × frames bound of one object",
        low=1 << 20,
    )
    max_archive_entries: int = setting(
        "SLICEWATCH_MAX_ARCHIVE_ENTRIES", 20_000, "bound on the entries of an archive", low=1
    )
    max_archive_bytes: int = setting(
        "SLICEWATCH_MAX_ARCHIVE_BYTES", 8 << 30, "unpacked size bound of an archive", low=1024
    )
    max_archive_ratio: int = setting(
        "SLICEWATCH_MAX_ARCHIVE_RATIO",
        200,
        "largest unpacked to packed ratio of an archive entry",
        low=2,
    )
    dropbox_source: str = setting(
        "SLICEWATCH_DROPBOX_SOURCE",
        "LogsAndContainerScan",
        "how blobs dropped into `dropbox` or `training/inbox` are noticed",
        choices=("LogsAndContainerScan", "EventGrid"),
    )
    # --- collecting
    quiet_s: float = setting(
        "SLICEWATCH_QUIET_SECONDS",
        60.0,
        "a study is complete when nothing came for this long",
        low=0.1,
        high=86_400,
    )
    force_s: float = setting(
        "SLICEWATCH_FORCE_SECONDS",
        3600.0,
        "a study is reviewed at the latest this long after its first slice",
        low=0.1,
        high=604_800,
    )
    poll_s: float = setting(
        "SLICEWATCH_POLL_SECONDS",
        1.0,
        "shortest pause between two inventories of a study that is arriving",
        low=0.05,
        high=600,
    )
    max_poll_s: float = setting(
        "SLICEWATCH_MAX_POLL_SECONDS",
        10.0,
        "longest pause between two inventories while nothing arrives",
        low=0.05,
        high=3600,
    )
    batch_wait_s: float = setting(
        "SLICEWATCH_BATCH_WAIT_SECONDS",
        5.0,
        "a batch that is not full is screened when its oldest slice waited this long",
        low=0,
        high=600,
    )
    # --- screening
    batch_size: int = setting(
        "SLICEWATCH_BATCH_SIZE", 32, "objects that one activity screens", low=1, high=256
    )
    max_in_flight: int = setting(
        "SLICEWATCH_MAX_IN_FLIGHT", 8, "batches of one study in flight at a time", low=1, high=256
    )
    retry_attempts: int = setting(
        "SLICEWATCH_RETRY_ATTEMPTS",
        5,
        "attempts of an activity at transient faults",
        low=1,
        high=50,
    )
    retry_first_s: float = setting(
        "SLICEWATCH_RETRY_FIRST_SECONDS",
        2.0,
        "pause before the second attempt, doubled each time",
        low=0.01,
        high=600,
    )
    onnx_threads: int = setting(
        "SLICEWATCH_ONNX_THREADS",
        0,
        "threads of one inference call; 0: one, with as many calls side by side as there are cores",
        low=0,
        high=256,
    )
    forensic_features: str = setting(
        "SLICEWATCH_FORENSIC_FEATURES",
        "on",
        "measure the pixels of each slice for the forensic checks while it is screened: about 1 ms "
        "for 180 × 180 pixels, 3 ms for 512 × 512; off, the checks that compare pixels stay silent",
        choices=("on", "off"),
    )
    models: Path = setting(
        "SLICEWATCH_MODELS", _ROOT / "models", "folder of the model registry (TOML and weights)"
    )
    policy: Path = setting(
        "SLICEWATCH_POLICY",
        _ROOT / "slicewatch" / "policies" / "default.toml",
        "the triage policy (TOML)",
    )
    # --- who acts
    development_identity: str = setting(
        "SLICEWATCH_DEVELOPMENT_IDENTITY",
        "",
        "`user:role,role`: who everybody is where nothing authenticates them; for a laptop and "
        "tests, refused where App Service authenticates",
    )
    platform_authentication: str = setting(
        "WEBSITE_AUTH_ENABLED",
        "",
        "`True` where App Service authentication is on: set by the platform, never by hand, since "
        "the principal header is believed then",
    )
    # --- review
    clinical_sla_s: float = setting(
        "SLICEWATCH_CLINICAL_SLA_SECONDS",
        3600.0,
        "a clinical item escalates when it is undecided for this long",
        low=0.1,
    )
    forensic_sla_s: float = setting(
        "SLICEWATCH_FORENSIC_SLA_SECONDS",
        86_400.0,
        "a forensic item escalates when it is undecided for this long",
        low=0.1,
    )
    clinical_max_wait_s: float = setting(
        "SLICEWATCH_CLINICAL_MAX_WAIT_SECONDS",
        14_400.0,
        "a clinical item that is undecided for this long rises to the top of the worklist, "
        "whatever its score",
        low=0.1,
    )
    forensic_max_wait_s: float = setting(
        "SLICEWATCH_FORENSIC_MAX_WAIT_SECONDS",
        345_600.0,
        "the same of a forensic item",
        low=0.1,
    )
    forensic_readers: int = setting(
        "SLICEWATCH_FORENSIC_READERS",
        1,
        "2: a forensic item needs a second reader, and a third where the two differ",
        low=1,
        high=2,
    )
    max_escalation: int = setting(
        "SLICEWATCH_MAX_ESCALATION", 3, "escalation levels; the last one stays", low=0, high=20
    )
    # --- results for other systems
    pacs_url: str = setting(
        "SLICEWATCH_PACS_URL",
        "",
        "base URL of the DICOMweb service (STOW-RS) that reports and presentation states are sent "
        "to; empty: they are served here and sent nowhere",
    )
    pacs_token: str = setting(
        "SLICEWATCH_PACS_TOKEN",
        "",
        "what the PACS is shown in the header Authorization: a bearer token, or a scheme and its "
        "value (`Basic …`); on Azure a Key Vault reference",
        secret=True,
    )
    pacs_timeout_s: float = setting(
        "SLICEWATCH_PACS_TIMEOUT_SECONDS",
        30.0,
        "how long the PACS may take to answer",
        low=0.1,
        high=300,
    )
    # --- chain of custody
    custody_key: str = setting(
        "SLICEWATCH_CUSTODY_KEY",
        "",
        "the Ed25519 private key that signs the custody log, as PEM text: on Azure a Key Vault "
        "reference; empty, and no key file: entries are chained but not signed",
        secret=True,
    )
    custody_key_file: str = setting(
        "SLICEWATCH_CUSTODY_KEY_FILE", "", "the same key in a PEM file; not both"
    )
    custody_checkpoint_storage: str = setting(
        "SLICEWATCH_CUSTODY_CHECKPOINT_STORAGE",
        "",
        "connection string of another storage account that keeps the checkpoints of the custody "
        "logs, out of reach of those who can write to the first; empty: the same account",
        secret=True,
    )
    sweep_schedule: str = setting(
        "SLICEWATCH_SWEEP_SCHEDULE",
        "0 */5 * * * *",
        "NCRONTAB schedule of the sweep for studies that nothing works on",
    )
    failed_study_pause_s: float = setting(
        "SLICEWATCH_FAILED_STUDY_PAUSE_SECONDS",
        60.0,
        "how long after a failure the sweep starts a study again, doubled each time, at most a day",
        low=0.1,
        high=86_400,
    )

    # --- data sets for training
    training_quiet_s: float = setting(
        "SLICEWATCH_TRAINING_QUIET_SECONDS",
        120.0,
        "a data set is prepared when nothing came into its inbox for this long",
        low=0.1,
        high=86_400,
    )
    training_feedback: str = setting(
        "SLICEWATCH_TRAINING_FEEDBACK",
        "off",
        "whether decided worklist items become examples of a data set",
        choices=("off", "on"),
    )
    training_feedback_dataset: str = setting(
        "SLICEWATCH_TRAINING_FEEDBACK_DATASET",
        "reviewed",
        "the data set that they become examples of",
    )

    # --- single images
    detect_model: str = setting(
        "SLICEWATCH_DETECT_MODEL",
        "",
        "model for single JPEG and PNG images; empty: the one of the highest priority",
    )
    detect_containers: tuple[str, ...] = setting(
        "SLICEWATCH_DETECT_CONTAINERS",
        ("images",),
        "containers whose blobs `POST detect` may be pointed at, separated by commas",
    )
    alerts: tuple[tuple[str, float], ...] = setting(
        "SLICEWATCH_ALERTS",
        (),
        "what calls for an alert: `class:score` separated by commas, `*` for any class; empty: "
        "nothing",
    )
    alert_queue: str = setting("SLICEWATCH_ALERT_QUEUE", "alerts", "queue that is told of an alert")

    def __post_init__(self) -> None:
        if self.max_poll_s < self.poll_s:
            raise SettingError(
                "SLICEWATCH_MAX_POLL_SECONDS is smaller than SLICEWATCH_POLL_SECONDS"
            )
        if not CONTAINER_NAME.fullmatch(self.training_feedback_dataset):
            raise SettingError(
                f"SLICEWATCH_TRAINING_FEEDBACK_DATASET is {self.training_feedback_dataset!r}; "
                "expected 3 to 63 lower-case letters, digits and single hyphens"
            )
        if self.pacs_url and not SERVICE_URL.fullmatch(self.pacs_url):
            raise SettingError(
                "SLICEWATCH_PACS_URL is no http or https URL without user, query and fragment; "
                "expected the service's base, as https://pacs.example.org/dicom-web"
            )
        if self.pacs_token and any(not " " <= char <= "~" for char in self.pacs_token):
            raise SettingError("SLICEWATCH_PACS_TOKEN has characters that no HTTP header may have")
        if not CONTAINER_NAME.fullmatch(self.alert_queue):
            raise SettingError(
                f"SLICEWATCH_ALERT_QUEUE is {self.alert_queue!r}; expected a queue's name: 3 to 63 "
                "lower-case letters, digits and single hyphens between them"
            )
        if self.custody_key and self.custody_key_file:
            raise SettingError(
                "SLICEWATCH_CUSTODY_KEY and SLICEWATCH_CUSTODY_KEY_FILE are both set; set one"
            )


_LISTS: dict[str, Callable[[str, str], Any]] = {
    "detect_containers": container_names,
    "alerts": alert_rules,
}


def load(environ: Mapping[str, str]) -> Settings:
    """Read the settings from an environment.

    Raises:
        SettingError: a value does not cast or lies outside its bounds, or a name is none of the
            app's; the text names the setting, the fault and what is expected.
    """
    check_names(environ, [f.metadata["name"] for f in dataclasses.fields(Settings)])
    values: dict[str, Any] = {}
    for f in dataclasses.fields(Settings):
        text = environ.get(f.metadata["name"], "").strip()
        if text:
            read = _LISTS.get(f.name)
            values[f.name] = (
                read(f.metadata["name"], text) if read else cast(f.metadata, type(f.default), text)
            )
    if not values.get("storage") and not values.get("storage_account_url"):
        values["storage"] = environ.get("AzureWebJobsStorage", "").strip()
    return Settings(**values)


def connection_setting(environ: Mapping[str, str] | None = None) -> str:
    """Name of the app setting that a trigger's ``connection`` is to name: Functions resolves
    connections by name, and with ``__blobServiceUri`` and the like appended for identities.
    """
    environ = os.environ if environ is None else environ
    own = ("SLICEWATCH_STORAGE", "SLICEWATCH_STORAGE_ACCOUNT")
    return own[0] if any(environ.get(name, "").strip() for name in own) else "AzureWebJobsStorage"


@cache
def current() -> Settings:
    """The settings of this process, read from its environment on first use."""
    return load(os.environ)
