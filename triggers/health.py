"""``health``: whether this instance can do its work."""

from __future__ import annotations

import logging
from collections.abc import Callable

import azure.durable_functions as df
import azure.functions as func

from slicewatch import settings, storage, unfinished
from slicewatch.settings import SettingError
from slicewatch.storage import StorageUnavailable
from triggers.responses import as_json

bp = df.Blueprint()
_log = logging.getLogger(__name__)


@bp.route("health", methods=["GET"])
def health(req: func.HttpRequest) -> func.HttpResponse:
    """200 when all checks pass, else 503: ``{"status", "checks": {name: "ok" | "failed"},
    "failed_studies": number}``, without the number when storage is away.

    Anybody may ask, so the answer says which check failed; why is in the log. A study that fails
    again and again is no reason to take the app out of service.
    """
    checks = {name: _passes(name, check) for name, check in _CHECKS.items()}
    ready = all(checks.values())
    return as_json(
        {
            "status": "ready" if ready else "not ready",
            "checks": {name: "ok" if passed else "failed" for name, passed in checks.items()},
            "failed_studies": _failed_studies(),
        },
        200 if ready else 503,
    )


def _failed_studies() -> int | None:
    try:
        return sum(1 for _ in unfinished.failures(storage.current()))
    except (StorageUnavailable, SettingError):
        return None


def _settings() -> None:
    settings.current()


def _storage() -> None:
    storage.current().ping()


def _models() -> None:
    from slicewatch import model_registry

    model_registry.current()


def _policy() -> None:
    from slicewatch import triage

    triage.current()


_CHECKS: dict[str, Callable[[], None]] = {
    "settings": _settings,
    "storage": _storage,
    "models": _models,
    "policy": _policy,
}


def _passes(name: str, check: Callable[[], None]) -> bool:
    # Whatever a check raises is what this door is asked for; the caller learns of it by the 503.
    try:
        check()
    except Exception:
        _log.exception("health: the check of %s failed", name)
        return False
    return True
