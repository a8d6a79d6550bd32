"""The agent's configuration: one TOML file, checked whole before anything starts.

``edge.example.toml`` names every key with its default; an error names file, line and key.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge.cleaning import WORDS_FILE
from edge.toml_table import ConfigError, Table, read_table

type Network = ipaddress.IPv4Network | ipaddress.IPv6Network
type Route = Literal["send", "night", "summary"]

_MIB = 1 << 20
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_OWN_HEADERS = ("authorization", "content-length", "content-type", "host", "x-functions-key")
_ROUTES = ("send", "night", "summary")
_OPTIONS = (
    *("uids", "device", "institution", "patient", "full_dates", "modified_dates"),
    *("descriptors", "structured_content", "graphics", "safe_private"),
)
_SAFE_PRIVATE = re.compile(r"[^\\:]{1,64}:[0-9A-F]{3}[13579BDF],[0-9A-F]{2}")


@dataclass(frozen=True, slots=True)
class Peer:
    """Who may send. `ae_title` ``*`` is any title; `urgent` puts its studies first."""

    ae_title: str
    networks: tuple[Network, ...]
    urgent: bool = False

    def fits(self, ae_title: str, address: str) -> bool:
        if self.ae_title not in ("*", ae_title):
            return False
        return self.has_address(address)

    def has_address(self, address: str) -> bool:
        given = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(given, "ipv4_mapped", None)
        return any((mapped or given) in network for network in self.networks)


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM. With `client_ca` a peer has to show a certificate that it signed."""

    certificate: Path
    key: Path
    client_ca: Path | None


@dataclass(frozen=True, slots=True)
class Receive:
    """The C-STORE SCP. Times in seconds."""

    ae_title: str
    address: str
    port: int
    peers: tuple[Peer, ...]
    require_called_ae_title: bool
    max_associations: int
    max_pdu_bytes: int
    max_object_bytes: int
    idle_s: float
    tls: Tls | None


@dataclass(frozen=True, slots=True)
class Folder:
    """A watched folder; a file is taken once its size stood still for `settle_s`."""

    path: Path
    settle_s: float
    poll_s: float
    urgent: bool


@dataclass(frozen=True, slots=True)
class Spool:
    """Where objects wait. Nothing is taken when less than `min_free_bytes` of the disk is free."""

    folder: Path
    min_free_bytes: int
    max_bytes: int
    keep_sent_h: float


@dataclass(frozen=True, slots=True)
class Cloud:
    """Where objects go: `url` is the service's base, with ``/api``. Times in seconds.

    `key_file` holds a function key; `token_file` a bearer token (RFC 6750), which something else
    renews: it is read anew for each request. `headers` go with every request.
    """

    url: str
    key_file: Path | None
    token_file: Path | None
    headers: dict[str, str]
    ca_file: Path | None
    connections: int
    batch_objects: int
    batch_bytes: int
    connect_s: float
    answer_s: float
    backoff_first_s: float
    backoff_max_s: float


@dataclass(frozen=True, slots=True)
class Study:
    """When a study is over: at the end of its last association, or after `quiet_s` of quiet."""

    close: Literal["association", "quiet"]
    quiet_s: float
    settle_s: float


@dataclass(frozen=True, slots=True)
class Deidentify:
    """De-identification with the basic profile; `key_file` and the mapping stay on site.

    `vocabulary` lists the words that may stay in texts; `safe_private` the private attributes that
    may stay: creator, group and the element within its block, ``CREATOR:0019,0C``.
    """

    key_file: Path
    options: tuple[str, ...]
    burned_in: Literal["refuse", "warn"]
    burned_in_modalities: tuple[str, ...]
    vocabulary: Path = WORDS_FILE
    safe_private: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LookFirst:
    """Screening on site. `calm`: what becomes of studies without a detection; `rest`: of the
    slices of a suspicious study that are farther than `context_slices` from a detection.
    """

    models: Path
    calm: Route
    rest: Route
    context_slices: int
    score: float
    threads: int


@dataclass(frozen=True, slots=True)
class Night:
    """When what waits for the night goes up, local time; may pass midnight."""

    begin: datetime.time
    end: datetime.time

    def contains(self, now: datetime.time) -> bool:
        if self.begin <= self.end:
            return self.begin <= now < self.end
        return now >= self.begin or now < self.end


@dataclass(frozen=True, slots=True)
class Status:
    """Where metrics and health are served."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Config:
    """All of it. `receive` is ``None`` for an agent that only watches folders."""

    receive: Receive | None
    folders: tuple[Folder, ...]
    spool: Spool
    cloud: Cloud
    study: Study
    deidentify: Deidentify | None
    look_first: LookFirst | None
    night: Night
    status: Status


def load(file: Path) -> Config:
    """Read and check a configuration.

    Raises:
        ConfigError: it cannot be read, or a key is missing, unknown or out of bounds.
    """
    top = read_table(file)
    config = Config(
        receive=top.optional("receive", _receive),
        folders=tuple(_folder(table) for table in top.tables("folder")),
        spool=_spool(top.table("spool")),
        cloud=_cloud(top.table("cloud")),
        study=_study(top.table("study")),
        deidentify=top.optional("deidentify", _deidentify),
        look_first=top.optional("look_first", _look_first),
        night=_night(top.table("night")),
        status=_status(top.table("status")),
    )
    top.done()
    if config.receive is None and not config.folders:
        raise ConfigError(f"{file}: neither [receive] nor [[folder]]: nothing could arrive")
    return config


def _receive(table: Table) -> Receive:
    receive = Receive(
        ae_title=table.ae_title("ae_title", "SLICEWATCH"),
        address=table.text("address", "0.0.0.0"),
        port=table.whole("port", 11112, 0, 65535),
        peers=tuple(_peer(peer) for peer in table.tables("peer")),
        require_called_ae_title=table.flag("require_called_ae_title", True),
        max_associations=table.whole("max_associations", 16, 1, 1000),
        max_pdu_bytes=table.whole("max_pdu_bytes", 131072, 4096, 16 * _MIB),
        max_object_bytes=table.whole("max_object_bytes", 1 << 30, 1024, 1 << 40),
        idle_s=table.number("idle_s", 60.0, 0.1, 86400.0),
        tls=table.optional("tls", _tls),
    )
    table.done()
    if not receive.peers:
        raise table.fault(
            "peer",
            "no [[receive.peer]]: nobody could send. Name each scanner's AE title and addresses",
        )
    return receive


def _peer(table: Table) -> Peer:
    networks = []
    for text in table.texts("addresses"):
        try:
            networks.append(ipaddress.ip_network(text, strict=False))
        except ValueError as error:
            raise table.fault("addresses", f"{error}") from error
    if not networks:
        raise table.fault("addresses", 'is missing: for example ["10.20.0.0/24"]')
    title = "*" if table.peek("ae_title") == "*" else None
    peer = Peer(
        table.text("ae_title") if title else table.ae_title("ae_title"),
        tuple(networks),
        table.flag("urgent", False),
    )
    table.done()
    return peer


def _tls(table: Table) -> Tls:
    tls = Tls(
        table.file("certificate"),
        table.file("key"),
        table.file("client_ca") if table.peek("client_ca") is not None else None,
    )
    table.done()
    return tls


def _folder(table: Table) -> Folder:
    folder = Folder(
        path=table.path("path"),
        settle_s=table.number("settle_s", 2.0, 0.0, 3600.0),
        poll_s=table.number("poll_s", 1.0, 0.01, 3600.0),
        urgent=table.flag("urgent", False),
    )
    table.done()
    return folder


def _spool(table: Table) -> Spool:
    spool = Spool(
        folder=table.path("folder"),
        min_free_bytes=table.whole("min_free_mib", 2048, 0, 1 << 30) * _MIB,
        max_bytes=table.whole("max_mib", 1 << 30, 1, 1 << 30) * _MIB,
        keep_sent_h=table.number("keep_sent_h", 0.0, 0.0, 24.0 * 366),
    )
    table.done()
    return spool


def _cloud(table: Table) -> Cloud:
    url = table.text("url").rstrip("/")
    if not url.startswith(("https://", "http://")):
        raise table.fault("url", "is no http(s) URL; for example https://HOST/api")
    cloud = Cloud(
        url=url,
        key_file=table.file("key_file") if table.peek("key_file") is not None else None,
        token_file=table.file("token_file") if table.peek("token_file") is not None else None,
        headers=_headers(table),
        ca_file=table.file("ca_file") if table.peek("ca_file") is not None else None,
        connections=table.whole("connections", 2, 1, 16),
        batch_objects=table.whole("batch_objects", 32, 1, 1000),
        batch_bytes=table.whole("batch_mib", 32, 1, 1024) * _MIB,
        connect_s=table.number("connect_s", 10.0, 0.1, 600.0),
        answer_s=table.number("answer_s", 120.0, 0.1, 3600.0),
        backoff_first_s=table.number("backoff_first_s", 1.0, 0.01, 3600.0),
        backoff_max_s=table.number("backoff_max_s", 300.0, 0.01, 86400.0),
    )
    table.done()
    return cloud


def _headers(table: Table) -> dict[str, str]:
    headers = table.table("headers")
    for name in headers.content:
        if not _FIELD_NAME.fullmatch(name) or name.lower() in _OWN_HEADERS:
            raise headers.fault(name, "is no name of a header that may be set here")
        value = headers.text(name)
        if not (value.isascii() and value.isprintable()):
            raise headers.fault(name, "expected printable ASCII characters")
    return {name: str(value) for name, value in headers.content.items()}


def _study(table: Table) -> Study:
    study = Study(
        close="association"
        if table.choice("close", ("quiet", "association"), "quiet") == "association"
        else "quiet",
        quiet_s=table.number("quiet_s", 60.0, 0.0, 86400.0),
        settle_s=table.number("settle_s", 5.0, 0.0, 86400.0),
    )
    table.done()
    return study


def _deidentify(table: Table) -> Deidentify:
    options = tuple(table.texts("options"))
    for option in options:
        if option not in _OPTIONS:
            raise table.fault("options", f"{option!r} is none of {', '.join(_OPTIONS)}")
    if "full_dates" in options and "modified_dates" in options:
        raise table.fault("options", "full_dates and modified_dates exclude each other")
    modalities = tuple(table.texts("burned_in_modalities"))
    safe = tuple(table.texts("safe_private"))
    for one in safe:
        if not _SAFE_PRIVATE.fullmatch(one):
            raise table.fault("safe_private", f"{one!r} is not like 'SIEMENS MR HEADER:0019,0C'")
    if bool(safe) != ("safe_private" in options):
        raise table.fault("safe_private", "goes together with the option safe_private")
    deidentify = Deidentify(
        key_file=table.file("key_file"),
        options=options,
        burned_in="warn"
        if table.choice("burned_in", ("refuse", "warn"), "refuse") == "warn"
        else "refuse",
        burned_in_modalities=modalities,
        vocabulary=table.file("vocabulary") if table.peek("vocabulary") else WORDS_FILE,
        safe_private=safe,
    )
    table.done()
    return deidentify


def _look_first(table: Table) -> LookFirst:
    look = LookFirst(
        models=table.path("models"),
        calm=_route(table, "calm"),
        rest=_route(table, "rest"),
        context_slices=table.whole("context_slices", 3, 0, 10000),
        score=table.number("score", 0.0, 0.0, 1.0),
        threads=table.whole("threads", 1, 0, 64),
    )
    table.done()
    return look


def _route(table: Table, key: str) -> Route:
    match table.choice(key, _ROUTES, "send"):
        case "night":
            return "night"
        case "summary":
            return "summary"
        case _:
            return "send"


def _night(table: Table) -> Night:
    night = Night(table.time("begin", datetime.time(20, 0)), table.time("end", datetime.time(6, 0)))
    table.done()
    return night


def _status(table: Table) -> Status:
    status = Status(table.text("address", "127.0.0.1"), table.whole("port", 9109, 0, 65535))
    table.done()
    return status
