"""Binding expressions: ``%SETTING%`` and ``{name}`` in paths and names of bindings."""

import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

from local_host.errors import HostError

_SETTING = re.compile(r"%([^%]+)%")
_EXPRESSION = re.compile(r"\{([^{}]+)\}")
_DATE_PARTS = (
    ("yyyy", "%Y"),
    ("MM", "%m"),
    ("dd", "%d"),
    ("HH", "%H"),
    ("mm", "%M"),
    ("ss", "%S"),
)


def resolve_settings(text: str, settings: Mapping[str, str], where: str) -> str:
    """Replace each ``%NAME%`` by the app setting; raises HostError for one that is not set."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in settings:
            raise HostError(
                f"{where} names %{name}%, but there is no setting {name}; add it to "
                "local.settings.json or the environment"
            )
        return settings[name]

    return _SETTING.sub(value, text)


def resolve_expressions(template: str, data: Mapping[str, object]) -> str:
    """Replace each ``{name}`` by the trigger's data, ``{rand-guid}`` or ``{DateTime[:format]}``.

    Raises:
        ValueError: The trigger's data has no such name.
    """

    def value(match: re.Match[str]) -> str:
        expression = match[1]
        lowered = expression.lower()
        if lowered == "rand-guid":
            return str(uuid.uuid4())
        if lowered == "datetime" or lowered.startswith("datetime:"):
            return _date(expression.partition(":")[2])
        node: object = data
        for key in expression.split("."):
            node = _member(node, key)
            if node is None:
                raise ValueError(f"the trigger's data has no value for {{{expression}}}")
        return str(node)

    return _EXPRESSION.sub(value, template)


def _member(node: object, key: str) -> object:
    if not isinstance(node, Mapping):
        return None
    if key in node:
        return node[key]
    return next((value for name, value in node.items() if str(name).lower() == key.lower()), None)


def _date(date_format: str) -> str:
    now = datetime.now(UTC)
    if not date_format:
        return now.strftime("%Y-%m-%dT%H-%M-%SZ")
    for ours, theirs in _DATE_PARTS:
        date_format = date_format.replace(ours, theirs)
    return now.strftime(date_format)


class BlobPattern:
    """A blob trigger's path, ``container/{name}``: which blobs it takes, and what it names."""

    def __init__(self, path: str) -> None:
        self.container, _, pattern = path.partition("/")
        if not self.container or "{" in self.container:
            raise ValueError(f"the blob path {path!r} must begin with a container's name")
        self._names = _EXPRESSION.findall(pattern)
        literals = _EXPRESSION.split(pattern)[::2]
        groups = ("(.*)" for _ in self._names)
        joined = re.escape(literals[0]) + "".join(
            group + re.escape(literal) for group, literal in zip(groups, literals[1:], strict=True)
        )
        self._regex = re.compile(joined if pattern else ".*", re.DOTALL)
        self.prefix = literals[0]

    def match(self, blob_name: str) -> dict[str, str] | None:
        """The values of the path's expressions, or None for a blob the path does not take."""
        match = self._regex.fullmatch(blob_name)
        if match is None:
            return None
        return dict(zip(self._names, match.groups(), strict=True))
