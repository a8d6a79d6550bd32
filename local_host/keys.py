"""Function keys, used with ``--enableAuth`` only."""

import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path
from typing import Any

from local_host.errors import HostError

_SYSTEM_KEYS = ("durabletask_extension", "blobs_extension")


def default_secrets_dir(app_dir: Path) -> Path:
    """Where an app's keys live: outside of the app, so that they are never committed."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    digest = hashlib.sha256(str(app_dir).encode()).hexdigest()[:12]
    return Path(state) / "functions-local-host" / f"{app_dir.name}-{digest}"


class FunctionKeys:
    """The keys in a folder, laid out as the Functions host lays its file secrets out.

    ``host.json`` holds the master key, the host's function keys and the extensions' system keys;
    ``NAME.json`` the keys of one function.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / "host.json"
        if not self.path.exists():
            self._create()
        content = self._read(self.path)
        try:
            self.master = str(content["masterKey"]["value"])
            self._host = [str(key["value"]) for key in content.get("functionKeys", [])]
            self._system = {
                str(key["name"]): str(key["value"]) for key in content.get("systemKeys", [])
            }
        except (KeyError, TypeError):
            raise HostError(
                f"{self.path} does not hold keys as the Functions host writes them; "
                "remove it to have new keys made"
            ) from None

    def _create(self) -> None:
        def key(name: str) -> dict[str, Any]:
            return {"name": name, "value": secrets.token_urlsafe(40), "encrypted": False}

        content = {
            "masterKey": key("master"),
            "functionKeys": [key("default")],
            "systemKeys": [key(name) for name in _SYSTEM_KEYS],
        }
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise HostError(
                f"cannot write the function keys to {self._folder}: {error.strerror}; "
                "name another folder with --secrets"
            ) from None
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)

    @staticmethod
    def _read(path: Path) -> dict[str, Any]:
        try:
            content = json.loads(path.read_text("utf-8-sig"))
        except (OSError, ValueError) as error:
            raise HostError(f"cannot read the function keys in {path}: {error}") from None
        if not isinstance(content, dict):
            raise HostError(f"{path} must hold a JSON object")
        return content

    def system_key(self, name: str) -> str:
        """The key of an extension's webhooks, or the master key where it has none."""
        return self._system.get(name, self.master)

    def admits(self, function: str, auth_level: str, presented: str) -> bool:
        """Whether the key lets a caller in at that level: anonymous, function or admin."""
        if auth_level == "anonymous":
            return True
        accepted = [self.master]
        if auth_level == "function":
            accepted += self._host
            own = self._folder / f"{function.lower()}.json"
            if own.exists():
                accepted += [str(key["value"]) for key in self._read(own).get("keys", [])]
        return _matches(presented, accepted)

    def admits_webhook(self, extension: str, presented: str) -> bool:
        """Whether the key opens an extension's webhooks."""
        return _matches(presented, [self.master, self.system_key(extension)])


def _matches(presented: str, accepted: list[str]) -> bool:
    given = presented.encode()
    return any(hmac.compare_digest(given, key.encode()) for key in accepted)
