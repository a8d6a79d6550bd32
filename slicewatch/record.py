"""JSON in both directions for the frozen dataclasses that cross a boundary."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Hashable
from enum import StrEnum
from functools import cache
from typing import Any, Self


class Record:
    """JSON in both directions for a frozen dataclass, driven by its type hints."""

    def to_json(self) -> dict[str, Any]:
        """The record as JSON types; fields that hold their default ``None`` are left out."""
        return {
            f.name: _plain(value)
            for f in dataclasses.fields(typing.cast(Any, self))
            if not ((value := getattr(self, f.name)) is None and f.default is None)
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Build the record from `to_json`'s dict; keys of a later version are ignored.

        Raises:
            KeyError: a field without default is missing.
        """
        hints = _hints(typing.cast("Hashable", cls))
        values: dict[str, Any] = {}
        for f in dataclasses.fields(typing.cast(Any, cls)):
            if f.name in data:
                values[f.name] = _typed(hints[f.name], data[f.name])
            elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
                raise KeyError(f"{cls.__name__}.{f.name}")
        return cls(**values)


@cache
def _hints(cls: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(typing.cast("type", cls))


def _plain(value: Any) -> Any:
    match value:
        case Record():
            return value.to_json()
        case StrEnum():
            return value.value
        case tuple() | list():
            return [_plain(item) for item in value]
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case _:
            return value


def _typed(hint: Any, value: Any) -> Any:
    if isinstance(hint, typing.TypeAliasType):
        hint = hint.__value__
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(arm for arm in hint.__args__ if arm is not types.NoneType)
        return _typed(hint, value)
    origin = typing.get_origin(hint)
    if origin is tuple:
        args = typing.get_args(hint)
        each = [args[0]] * len(value) if args[-1] is Ellipsis else args
        return tuple(_typed(arm, item) for arm, item in zip(each, value, strict=True))
    if origin is dict:
        return {key: _typed(typing.get_args(hint)[1], item) for key, item in value.items()}
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint.from_json(value)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint(value)
    return float(value) if hint is float else value
