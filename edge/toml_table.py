"""Typed access to a TOML document: a value of the wrong kind, or an unknown key, is an error."""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slicewatch.toml_lines import KeyPath, dotted, line_of, line_of_error


class ConfigError(Exception):
    """The configuration cannot be used; the text names the file, the line and the key."""


def read_table(file: Path) -> Table:
    """The document's top table. Raises `ConfigError` when it cannot be read or is no TOML."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is not UTF-8") from error
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}:{line_of_error(error, text)}: {error}") from error
    return Table(content, (), file, text)


@dataclass(slots=True)
class Table:
    """One table of the document; every fault names file, line and key."""

    content: dict[str, Any]
    at: KeyPath
    source: Path
    text_of_file: str
    known: set[str] = field(default_factory=set)

    def fault(self, key: str, fault: str) -> ConfigError:
        path = (*self.at, key)
        try:
            line = line_of(self.text_of_file, path)
        except KeyError:
            line = line_of(self.text_of_file, self.at) if self.stands() else 1
        return ConfigError(f"{self.source}:{line}: {dotted(path)}: {fault}")

    def stands(self) -> bool:
        try:
            line_of(self.text_of_file, self.at)
        except KeyError:
            return False
        return True

    def peek(self, key: str) -> Any:
        return self.content.get(key)

    def _value(self, key: str, default: Any) -> Any:
        self.known.add(key)
        value = self.content.get(key, default)
        if value is None:
            raise self.fault(key, "is missing")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self._value(key, default)
        if not isinstance(value, str) or not value.strip():
            raise self.fault(key, f"is {value!r}; expected a text")
        return value

    def ae_title(self, key: str, default: str | None = None) -> str:
        """An AE title (PS3.5 section 6.2): up to 16 printable ASCII characters, no backslash."""
        value = self.text(key, default).strip()
        if len(value) > 16 or not value.isascii() or not value.isprintable() or "\\" in value:
            raise self.fault(key, f"is {value!r}; expected an AE title of at most 16 characters")
        return value

    def texts(self, key: str) -> list[str]:
        value = self._value(key, [])
        if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
            raise self.fault(key, f"is {value!r}; expected a list of texts")
        return value

    def choice(self, key: str, choices: tuple[str, ...], default: str) -> str:
        value = self.text(key, default)
        if value not in choices:
            raise self.fault(key, f"is {value!r}; expected one of {', '.join(choices)}")
        return value

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.fault(key, f"is {value!r}; expected a whole number, {low} to {high}")
        return value

    def number(self, key: str, default: float, low: float, high: float) -> float:
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fault(key, f"is {value!r}; expected a number")
        if not low <= value <= high:
            raise self.fault(key, f"is {value!r}; expected {low:g} to {high:g}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.fault(key, f"is {value!r}; expected true or false")
        return value

    def time(self, key: str, default: datetime.time) -> datetime.time:
        value = self._value(key, default)
        if not isinstance(value, datetime.time):
            raise self.fault(key, f"is {value!r}; expected a local time such as 20:00:00")
        return value

    def path(self, key: str) -> Path:
        """A path; a relative one starts at the configuration's folder."""
        return self.source.parent / Path(self.text(key)).expanduser()

    def file(self, key: str) -> Path:
        path = self.path(key)
        if not path.is_file():
            raise self.fault(key, f"{path} does not exist")
        return path

    def table(self, key: str) -> Table:
        self.known.add(key)
        value = self.content.get(key, {})
        if not isinstance(value, dict):
            raise self.fault(key, f"expected a table: [{dotted((*self.at, key))}]")
        return Table(value, (*self.at, key), self.source, self.text_of_file)

    def optional[T](self, key: str, build: Callable[[Table], T]) -> T | None:
        return build(self.table(key)) if self.content.get(key) is not None else None

    def tables(self, key: str) -> list[Table]:
        self.known.add(key)
        value = self.content.get(key, [])
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise self.fault(key, f"expected tables: [[{dotted((*self.at, key))}]]")
        return [
            Table(one, (*self.at, key, index), self.source, self.text_of_file)
            for index, one in enumerate(value)
        ]

    def done(self) -> None:
        """Refuse what nobody asked for: a misspelt key would be a silent default."""
        for key in self.content:
            if key not in self.known:
                raise self.fault(key, f"unknown key; known are {', '.join(sorted(self.known))}")
