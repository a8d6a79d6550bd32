"""The line on which a key of a TOML document stands, for errors that point at it."""

from __future__ import annotations

import re
import tomllib
from typing import Any

type KeyPath = tuple[str | int, ...]
"""Keys and array indices from the top of the document."""


def line_of(text: str, path: KeyPath) -> int:
    """The line, from 1, of the statement that first defines `path`; 1 for the document itself.

    A statement is complete at the first line where the text so far parses and holds the key, so
    the parser itself says where it begins: after the last line where the text parsed without it.
    Strings and arrays over several lines need no second parser. Quadratic, for errors only.
    """
    if not path:
        return 1
    lines = text.splitlines(keepends=True)
    begin = 1
    for count in range(len(lines) + 1):
        try:
            document = tomllib.loads("".join(lines[:count]))
        except tomllib.TOMLDecodeError:
            continue  # in the middle of a statement
        if _holds(document, path):
            return begin
        begin = count + 1
    raise KeyError(path)


def line_of_error(error: tomllib.TOMLDecodeError, text: str) -> int:
    """The line, from 1, that the parser complains about."""
    found = re.search(r"\(at line (\d+), column \d+\)", str(error))
    return int(found[1]) if found else max(1, len(text.splitlines()))


def dotted(path: KeyPath) -> str:
    """The path as people write it: ``rule[2].finding.min_score``, indices from 1."""
    text = "".join(f"[{key + 1}]" if isinstance(key, int) else f".{key}" for key in path)
    return text.removeprefix(".")


def _holds(document: Any, path: KeyPath) -> bool:
    for key in path:
        try:
            document = document[key]
        except (KeyError, IndexError, TypeError):
            return False
    return True
