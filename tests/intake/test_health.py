"""The health door says which check failed, and no more."""

from __future__ import annotations

import pytest

from slicewatch.settings import Settings
from tests.doors import body_of, function_of, request


def test_health_says_which_check_failed_and_no_more(
    app: pytest.MonkeyPatch, settings: Settings
) -> None:
    from slicewatch import model_registry, triage
    from triggers import health

    app.setattr(model_registry, "current", lambda: None)
    app.setattr(triage, "current", lambda: None)
    response = function_of(health)(request("GET", "health"))
    assert response.status_code == 200
    assert body_of(response)["status"] == "ready"

    def broken() -> None:
        raise ValueError("AccountKey=secret")

    app.setattr(triage, "current", broken)
    response = function_of(health)(request("GET", "health"))
    assert response.status_code == 503
    checks = body_of(response)["checks"]
    assert checks == {"settings": "ok", "storage": "ok", "models": "ok", "policy": "failed"}
    assert b"secret" not in response.get_body()
