"""How one app setting is declared, and how its text is read."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_PREFIX = "SLICEWATCH_"
_EDGE_PREFIX = "SLICEWATCH_EDGE_"  # of the edge agent, a program of its own
CONTAINER_NAME = re.compile(r"[a-z0-9](-?[a-z0-9]){2,62}")
"""Of containers and of queues: 3 to 63 lower-case letters, digits and single hyphens between."""
SERVICE_URL = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")
"""Without user, query and fragment."""


class SettingError(ValueError):
    """An app setting has a value that cannot be used; the text names the setting and why."""


def setting(
    name: str,
    default: Any,
    description: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    """A field of `settings.Settings`: the app setting's name, default, description and bounds."""
    metadata = {
        "name": name, "description": description, "low": low, "high": high, "choices": choices,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata, repr=not secret)


def check_names(environ: Iterable[str], known: list[str]) -> None:
    """Refuse a misspelt name: it would have no effect, and nobody would know. Raises
    `SettingError` with the nearest known name.
    """
    for name in environ:
        # An identity-based connection is a group of names; see `connection_setting`.
        setting = name.partition("__")[0]
        if not setting.upper().startswith(_PREFIX) or setting.startswith(_EDGE_PREFIX):
            continue
        if setting not in known:
            nearest = difflib.get_close_matches(setting.upper(), known, n=1, cutoff=0)[0]
            raise SettingError(f"{name} is no app setting; did you mean {nearest}?")


def cast(meta: Mapping[str, Any], kind: type, text: str) -> Any:
    """The text as the setting's type. Raises `SettingError`."""
    name = meta["name"]
    if issubclass(kind, Path):
        return Path(text)
    if kind is str:
        if meta["choices"] and text not in meta["choices"]:
            raise SettingError(f"{name} is {text!r}; expected one of {', '.join(meta['choices'])}")
        return text
    try:
        value = int(text) if kind is int else float(text)
    except ValueError:
        noun = "a whole number" if kind is int else "a number"
        raise SettingError(f"{name} is {text!r}; expected {noun}") from None
    low, high = meta["low"], meta["high"]
    if not (low is None or value >= low) or not (high is None or value <= high):
        bounds = f"from {low}" + ("" if high is None else f" to {high}")
        raise SettingError(f"{name} is {text!r}; expected a value {bounds}")
    return value


def container_names(name: str, text: str) -> tuple[str, ...]:
    """Names of containers, separated by commas. Raises `SettingError`."""
    names = tuple(part.strip() for part in text.split(","))
    for one in names:
        if not CONTAINER_NAME.fullmatch(one):
            raise SettingError(f"{name} has {one!r}, which cannot be a container's name")
    return names


def alert_rules(name: str, text: str) -> tuple[tuple[str, float], ...]:
    """``class:score``, separated by commas. Raises `SettingError`."""
    rules = []
    for part in text.split(","):
        label, _, score = part.strip().rpartition(":")
        try:
            value = float(score)
        except ValueError:
            value = -1.0
        if not label or not 0 <= value <= 1:
            raise SettingError(f"{name} has {part.strip()!r}; expected class:score, score 0 to 1")
        rules.append((label, value))
    return tuple(rules)


_SERVICE = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")
