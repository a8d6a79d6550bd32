"""host.json, local.settings.json and the environment, read once and cast."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from local_host.errors import HostError
from local_host.timespan import parse_timespan

DEFAULT_PORT = 7071
_OVERRIDE_PREFIX = "azurefunctionsjobhost__"
_LOG_LEVELS = {
    "trace": "DEBUG",
    "debug": "DEBUG",
    "information": "INFO",
    "info": "INFO",
    "warning": "WARNING",
    "error": "ERROR",
    "critical": "CRITICAL",
    "none": "CRITICAL",
}
_OVERRIDABLE_STATES = ("AnyState", "NonRunningStates")


@dataclass(frozen=True)
class QueueOptions:
    """host.json ``extensions.queues``."""

    batch_size: int
    new_batch_threshold: int
    max_dequeue_count: int
    visibility_timeout: timedelta
    max_polling_interval: timedelta
    base64: bool


@dataclass(frozen=True)
class BlobOptions:
    """host.json ``extensions.blobs``."""

    max_degree_of_parallelism: int
    poison_threshold: int


@dataclass(frozen=True)
class DurableOptions:
    """host.json ``extensions.durableTask``."""

    hub_name: str
    max_activities: int
    max_orchestrators: int
    max_entities: int
    replace_running: bool


@dataclass(frozen=True)
class HostSettings:
    """All that the host reads before it starts. Durations are None where there is no limit."""

    app_dir: Path
    script_file: str
    port: int
    route_prefix: str
    log_level: str
    function_timeout: timedelta | None
    worker_count: int
    thread_count: int | None
    cors_origins: tuple[str, ...]
    cors_credentials: bool
    durable: DurableOptions
    queues: QueueOptions
    blobs: BlobOptions
    app_settings: Mapping[str, str]


class HostJson:
    """host.json with its ``AzureFunctionsJobHost__a__b`` overrides; keys ignore case."""

    def __init__(self, content: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self._content = content
        self._overrides = {
            name.lower().removeprefix(_OVERRIDE_PREFIX): value
            for name, value in environment.items()
            if name.lower().startswith(_OVERRIDE_PREFIX)
        }

    def get(self, *path: str) -> Any:
        """The value at ``path``, or None where host.json and its overrides leave it out."""
        override = self._overrides.get("__".join(path).lower())
        if override is not None:
            return override
        node: Any = self._content
        for key in path:
            if not isinstance(node, Mapping):
                return None
            node = next((v for k, v in node.items() if k.lower() == key.lower()), None)
        return node

    def integer(self, *path: str, default: int, least: int, most: int) -> int:
        """The whole number at ``path``; raises HostError outside ``least`` to ``most``."""
        value = self.get(*path)
        if value is None:
            return default
        return _integer(f"host.json {'.'.join(path)}", value, least, most)

    def duration(self, *path: str, default: timedelta) -> timedelta:
        """The duration at ``path``; raises HostError where it is none."""
        value = self.get(*path)
        if value is None:
            return default
        try:
            return parse_timespan(str(value))
        except ValueError as error:
            raise HostError(f"host.json {'.'.join(path)}: {error}") from None

    def choice(self, *path: str, default: str, choices: tuple[str, ...]) -> str:
        """The word at ``path``, as ``choices`` spells it; raises HostError for another."""
        value = self.get(*path)
        if value is None:
            return default
        for choice in choices:
            if str(value).lower() == choice.lower():
                return choice
        raise HostError(
            f"host.json {'.'.join(path)} is {value!r}; it is one of {', '.join(choices)}"
        )


def _integer(name: str, value: object, least: int, most: int) -> int:
    try:
        number = int(str(value))
    except ValueError:
        raise HostError(f"{name} is {value!r}; it must be a whole number") from None
    if not least <= number <= most:
        raise HostError(f"{name} is {number}; it must be between {least} and {most}")
    return number


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise HostError(
            f"{path.name} is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise HostError(f"cannot read {path}: {error}") from None
    if not isinstance(content, dict):
        raise HostError(f"{path.name} must hold a JSON object")
    return content


def _local_settings(app_dir: Path) -> dict[str, Any]:
    path = app_dir / "local.settings.json"
    if not path.exists():
        return {}
    content = _read_json(path)
    if content.get("IsEncrypted"):
        raise HostError(
            "local.settings.json is encrypted, which this host cannot read; "
            'decrypt it (func settings decrypt) or set "IsEncrypted" to false'
        )
    values = content.get("Values", {})
    if not isinstance(values, dict) or any(isinstance(v, dict | list) for v in values.values()):
        raise HostError('local.settings.json "Values" must map names to plain values')
    return content


def _app_settings(content: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    """Settings of the app: the environment wins over local.settings.json, as with Core Tools."""
    settings = {name: _setting_text(value) for name, value in content.get("Values", {}).items()}
    for name, value in content.get("ConnectionStrings", {}).items():
        text = value.get("ConnectionString", "") if isinstance(value, dict) else value
        settings[f"ConnectionStrings:{name}"] = str(text)
    return settings | dict(environment)


def _setting_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _log_level(host: HostJson, option: str | None) -> str:
    levels = host.get("logging", "logLevel")
    default = levels.get("default") if isinstance(levels, Mapping) else None
    value = option or host.get("logging", "logLevel", "default") or default or "Information"
    if str(value).lower() not in _LOG_LEVELS:
        raise HostError(f"log level {value!r} is not one of {', '.join(_LOG_LEVELS)}")
    return _LOG_LEVELS[str(value).lower()]


def _durable_options(host: HostJson, settings: Mapping[str, str]) -> DurableOptions:
    processors = os.cpu_count() or 1
    base = ("extensions", "durableTask")
    limits = {"least": 1, "most": 10_000}
    hub = str(host.get(*base, "hubName") or "TestHubName")
    if hub.startswith("%") and hub.endswith("%"):
        name = hub.strip("%")
        if not settings.get(name):
            raise HostError(f"host.json names the task hub {hub}, but the setting {name} is empty")
        hub = settings[name]
    states = host.choice(
        *base,
        "overridableExistingInstanceStates",
        default="NonRunningStates",
        choices=_OVERRIDABLE_STATES,
    )
    return DurableOptions(
        hub_name=hub,
        max_activities=host.integer(
            *base, "maxConcurrentActivityFunctions", default=10 * processors, **limits
        ),
        max_orchestrators=host.integer(
            *base, "maxConcurrentOrchestratorFunctions", default=10 * processors, **limits
        ),
        max_entities=host.integer(
            *base, "maxConcurrentEntityFunctions", default=10 * processors, **limits
        ),
        replace_running=states == "AnyState",
    )


def _queue_options(host: HostJson) -> QueueOptions:
    base = ("extensions", "queues")
    batch_size = host.integer(*base, "batchSize", default=16, least=1, most=32)
    encoding = host.choice(*base, "messageEncoding", default="base64", choices=("base64", "none"))
    return QueueOptions(
        batch_size=batch_size,
        new_batch_threshold=host.integer(
            *base, "newBatchThreshold", default=max(1, batch_size // 2), least=0, most=1000
        ),
        max_dequeue_count=host.integer(*base, "maxDequeueCount", default=5, least=1, most=1000),
        visibility_timeout=host.duration(*base, "visibilityTimeout", default=timedelta(0)),
        max_polling_interval=host.duration(
            *base, "maxPollingInterval", default=timedelta(seconds=2)
        ),
        base64=encoding == "base64",
    )


def load_settings(
    app_dir: Path,
    environment: Mapping[str, str],
    *,
    port: int | None = None,
    log_level: str | None = None,
) -> HostSettings:
    """Read the settings of the app in ``app_dir``; options given here win over the files.

    Raises:
        HostError: There is no app, or a file or a value in it is wrong.
    """
    if not (app_dir / "host.json").is_file():
        raise HostError(
            f"{app_dir} holds no host.json, so it is no Functions app; "
            "name the app's folder with --app"
        )
    local = _local_settings(app_dir)
    settings = _app_settings(local, environment)
    host = HostJson(_read_json(app_dir / "host.json"), settings)
    if str(host.get("version")) != "2.0":
        raise HostError(f'host.json "version" is {host.get("version")!r}; it must be "2.0"')
    local_host = local.get("Host") or {}
    if port is None:
        port = _integer(
            "local.settings.json Host.LocalHttpPort",
            local_host.get("LocalHttpPort", DEFAULT_PORT),
            0,
            65535,
        )
    timeout = str(host.get("functionTimeout") or "-1")
    threads = settings.get("PYTHON_THREADPOOL_THREAD_COUNT")
    prefix = host.get("extensions", "http", "routePrefix")
    return HostSettings(
        app_dir=app_dir,
        script_file=settings.get("PYTHON_SCRIPT_FILE_NAME") or "function_app.py",
        port=port,
        route_prefix=("api" if prefix is None else str(prefix)).strip("/"),
        log_level=_log_level(host, log_level),
        function_timeout=(
            None
            if timeout == "-1"
            else host.duration("functionTimeout", default=timedelta(minutes=30))
        ),
        worker_count=_integer(
            "FUNCTIONS_WORKER_PROCESS_COUNT",
            settings.get("FUNCTIONS_WORKER_PROCESS_COUNT") or 1,
            1,
            10,
        ),
        thread_count=(
            _integer("PYTHON_THREADPOOL_THREAD_COUNT", threads, 1, 1000) if threads else None
        ),
        cors_origins=tuple(
            origin.strip() for origin in str(local_host.get("CORS", "")).split(",") if origin
        ),
        cors_credentials=bool(local_host.get("CORSCredentials", False)),
        durable=_durable_options(host, settings),
        queues=_queue_options(host),
        blobs=BlobOptions(
            max_degree_of_parallelism=host.integer(
                "extensions",
                "blobs",
                "maxDegreeOfParallelism",
                default=8 * (os.cpu_count() or 1),
                least=1,
                most=1000,
            ),
            poison_threshold=host.integer(
                "extensions", "blobs", "poisonBlobThreshold", default=5, least=1, most=1000
            ),
        ),
        app_settings=settings,
    )
