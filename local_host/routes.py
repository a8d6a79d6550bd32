"""HTTP routes as Functions write them: ``studies/{id:guid}/{*rest}``, and which one wins.

Templates, constraints and precedence follow ASP.NET Core routing, which the Functions host uses.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import unquote
from uuid import UUID

_PARAMETER = re.compile(
    r"\{(?P<catch>\*{0,2})(?P<name>[^{}:=?*]+)"
    r"(?P<constraints>(?::(?:[^{}()=?]|\((?:[^()]|\([^()]*\))*\)|\{[^{}]*\})+)*)"
    r"(?:=(?P<default>[^{}]*))?(?P<optional>\?)?\}"
)
_CONSTRAINT = re.compile(r"(?P<name>\w+)(?:\((?P<arguments>.*)\))?")


def _is_integer(least: int, most: int) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        return bool(re.fullmatch(r"[+-]?\d+", text)) and least <= int(text) <= most

    return check


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return check


_PLAIN: dict[str, Callable[[str], bool]] = {
    "int": _is_integer(-(2**31), 2**31 - 1),
    "long": _is_integer(-(2**63), 2**63 - 1),
    "bool": lambda text: text.lower() in ("true", "false"),
    "guid": _parses(UUID),
    "datetime": _parses(datetime.fromisoformat),
    "decimal": lambda text: bool(re.fullmatch(r"[+-]?\d+(\.\d+)?", text)),
    "double": _parses(float),
    "float": _parses(float),
    "alpha": lambda text: bool(re.fullmatch(r"[A-Za-z]*", text)),
    "required": bool,
}


def _numbers(arguments: str) -> list[int]:
    return [int(part) for part in arguments.split(",")]


def _length(arguments: str) -> Callable[[str], bool]:
    bounds = _numbers(arguments)
    return lambda text: bounds[0] <= len(text) <= bounds[-1]


def _range(arguments: str) -> Callable[[str], bool]:
    least, most = _numbers(arguments)
    return _is_integer(least, most)


def _regex(arguments: str) -> Callable[[str], bool]:
    pattern = re.compile(arguments, re.IGNORECASE)
    return lambda text: pattern.search(text) is not None


_WITH_ARGUMENTS: dict[str, Callable[[str], Callable[[str], bool]]] = {
    "length": _length,
    "minlength": lambda arguments: lambda text: len(text) >= int(arguments),
    "maxlength": lambda arguments: lambda text: len(text) <= int(arguments),
    "min": lambda arguments: _is_integer(int(arguments), 2**63 - 1),
    "max": lambda arguments: _is_integer(-(2**63), int(arguments)),
    "range": _range,
    "regex": _regex,
}


def _constraint(text: str) -> Callable[[str], bool]:
    match = _CONSTRAINT.fullmatch(text)
    name = match["name"].lower() if match else text
    arguments = match["arguments"] if match else None
    try:
        if arguments is not None and name in _WITH_ARGUMENTS:
            return _WITH_ARGUMENTS[name](arguments)
        return _PLAIN[name]
    except (KeyError, ValueError, IndexError, re.error):
        raise ValueError(f"{text!r} is not a route constraint this host knows") from None


def _split_constraints(text: str) -> list[str]:
    """Split ``:int:range(1,2)`` at the colons that are not inside parentheses."""
    parts: list[str] = []
    depth = 0
    for character in text:
        if character == ":" and depth == 0:
            parts.append("")
            continue
        depth += (character == "(") - (character == ")")
        parts[-1] += character
    return parts


@dataclass(frozen=True)
class _Segment:
    pattern: re.Pattern[str]
    checks: dict[str, tuple[Callable[[str], bool], ...]]
    defaults: dict[str, str]
    optional: bool
    catch_all: bool
    rank: int


def _parse_segment(text: str) -> _Segment:
    pattern, position, parameters, literal = "", 0, 0, False
    checks: dict[str, tuple[Callable[[str], bool], ...]] = {}
    defaults: dict[str, str] = {}
    optional = catch_all = False
    for match in _PARAMETER.finditer(text):
        literal = literal or match.start() > position
        pattern += re.escape(text[position : match.start()])
        pattern += f"(?P<p{parameters}>.+)" if not match["catch"] else f"(?P<p{parameters}>.*)"
        parameters += 1
        position = match.end()
        name = match["name"].strip()
        checks[name] = tuple(
            _constraint(part) for part in _split_constraints(match["constraints"] or "")
        )
        if match["default"] is not None:
            defaults[name] = match["default"]
        optional = optional or bool(match["optional"]) or match["default"] is not None
        catch_all = catch_all or bool(match["catch"])
    tail = text[position:]
    if "{" in tail or "}" in tail:
        raise ValueError(f"the route segment {text!r} cannot be read")
    literal = literal or bool(tail)
    constrained = any(checks.values())
    if not parameters:
        rank = 1
    elif catch_all:
        rank = 4 if constrained else 5
    else:
        rank = 2 if constrained or literal else 3
    return _Segment(
        re.compile(pattern + re.escape(tail), re.IGNORECASE | re.DOTALL),
        checks,
        defaults,
        optional,
        catch_all,
        rank,
    )


class Route:
    """A route template. ``rank`` orders routes: of all that match, the least wins."""

    def __init__(self, template: str) -> None:
        self.template = template
        self._segments = [
            _parse_segment(segment) for segment in _split_template(template.strip("/"))
        ]
        if any(segment.catch_all for segment in self._segments[:-1]):
            raise ValueError(f"in the route {template!r} a catch-all is not the last segment")
        self.rank = tuple(segment.rank for segment in self._segments)

    def match(self, raw_path: str) -> dict[str, str] | None:
        """The decoded route parameters of a path as it came over the wire, or None."""
        parts = raw_path.strip("/").split("/") if raw_path.strip("/") else []
        found: dict[str, str] = {}
        for index, segment in enumerate(self._segments):
            if segment.catch_all:
                text = "/".join(parts[index:])
            elif index < len(parts):
                text = parts[index]
            elif segment.optional:
                found |= segment.defaults
                continue
            else:
                return None
            values = _match_segment(segment, unquote(text))
            if values is None:
                return None
            found |= values
        taken = len(parts) <= len(self._segments)
        return found if taken or (self._segments and self._segments[-1].catch_all) else None


def _match_segment(segment: _Segment, text: str) -> dict[str, str] | None:
    match = segment.pattern.fullmatch(text)
    if match is None:
        return None
    values = dict(zip(segment.checks, match.groups(), strict=True))
    for name, checks in segment.checks.items():
        if not all(check(values[name]) for check in checks):
            return None
    return {name: value for name, value in values.items() if value} | {
        name: default for name, default in segment.defaults.items() if not values.get(name)
    }


def _split_template(template: str) -> Iterable[str]:
    """Split at slashes outside braces: a regex constraint may hold one."""
    if not template:
        return []
    parts, depth = [""], 0
    for character in template:
        depth += (character == "{") - (character == "}")
        if character == "/" and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts
