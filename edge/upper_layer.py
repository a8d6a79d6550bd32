"""What pynetdicom's upper layer needs before hostile peers may talk to it.

- A PDU longer than was agreed ends the association before memory is spent on it.
- A large dataset goes to the spool's disk as its fragments arrive, so it is never in memory, and
  one over the bound ends the association.
- A request is served by the thread that read it, which waits on its socket: no polling between.
- A TLS handshake happens in the connection's own thread: a peer that stays silent holds nobody up.

It reaches into pynetdicom where that has no seam; requirements-edge.txt pins the version.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import (
    AddressInformation,
    AssociationSocket,
    RequestHandler,
    ThreadedAssociationServer,
)

from edge.spool import DiskFull, Spool

_log = logging.getLogger(__name__)

IMPLEMENTATION_CLASS_UID = UID("2.25.291836458117412690533210938465526931202")
IMPLEMENTATION_VERSION = "SLICEWATCH_EDGE"

_A_ABORT_INVALID_PARAMETER = bytes.fromhex("07000000000400000206")  # PS3.8 section 9.3.8
_MIN_PDU_LIMIT = 1 << 20
"""The agreed length binds P-DATA-TF only; an A-ASSOCIATE-RQ with 128 contexts is not small."""
_HANDSHAKE_S = 10.0
_LOOK_MS = 5
_MEMORY_BYTES = 4 << 20
"""A file costs a small object more than its fragments do; times associations, this is memory."""
_PDU_DEADLINES = 10


class Arriving:
    """A C-STORE's object as it arrives, as a Part 10 file: a small one in memory, a large one in
    the spool's ``arriving``.

    Stands where pynetdicom keeps its temporary file. `sha256` is of the whole file.
    """

    def __init__(self, spool: Spool, meta: bytes, max_bytes: int) -> None:
        self.name = ""
        self.file = self  # pynetdicom flushes `.file` after each fragment
        self._spool = spool
        self._left = max_bytes
        self._hash = hashlib.sha256()
        self._memory: bytearray | None = bytearray()
        self._file: BinaryIO | None = None
        self.write(bytes(128) + b"DICM" + meta)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: bytes) -> None:
        """Raises `DiskFull`; raises ValueError when the object is larger than allowed."""
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("the object is larger than receive.max_object_bytes")
        self._hash.update(data)
        if self._memory is not None:
            self._memory += data
            if len(self._memory) > _MEMORY_BYTES:
                self._spill(self._memory)
        else:
            self._write(data)

    def _spill(self, data: bytearray) -> None:
        path = self._spool.create()
        self.name = str(path)
        self._file = path.open("wb")
        self._memory = None
        self._write(data)

    def _write(self, data: bytes | bytearray) -> None:
        assert self._file is not None
        try:
            self._file.write(data)
        except OSError as error:
            raise DiskFull(f"writing to the spool failed: {error.strerror}") from error

    def flush(self) -> None:
        """Not after each fragment: the spool flushes the whole file."""

    def finish(self) -> Path | bytes:
        """All of it: where it is, or itself. Raises `DiskFull`."""
        if self._memory is not None:
            return bytes(self._memory)
        assert self._file is not None
        try:
            self._file.close()
        except OSError as error:
            raise DiskFull(f"writing to the spool failed: {error.strerror}") from error
        return Path(self.name)

    def close(self) -> None:
        """Safe to call again, and after a failure."""
        self._memory = None
        if self._file is not None:
            try:
                self._file.close()
            except OSError:
                _log.warning("closing an arriving file failed; it was not acknowledged")

    def discard(self) -> None:
        """The object will not be completed, or the spool has it."""
        self.close()
        if self.name:
            Path(self.name).unlink(missing_ok=True)


class _ServedAtOnce(queue.Queue[Any]):
    """Where complete messages go. A request is served in the thread that read it: it need not
    wait for the association's thread, nor its answer for the next round of this one. The peer
    waits for its answer, so nothing else could be read meanwhile.
    """

    def __init__(self, assoc: Association) -> None:
        super().__init__()
        self._assoc = assoc

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        context, message = item
        assoc = self._assoc
        served = isinstance(message, (C_STORE, C_ECHO)) and context in assoc._accepted_cx
        # Before that, an answer would be held back: the association's thread is not so far yet.
        if not served or not assoc.is_established:
            super().put(item, block, timeout)
            return
        # The other kind waits for this very thread to end.
        assoc.abort = assoc._abort_nonblocking  # type: ignore[method-assign]
        assoc._serve_request(message, context)
        assoc.abort = assoc._abort_blocking  # type: ignore[method-assign]


class SpoolingDimse(DIMSEServiceProvider):
    """Puts the dataset of each C-STORE into an `Arriving`."""

    def __init__(self, assoc: Association, spool: Spool, max_bytes: int) -> None:
        super().__init__(assoc)
        self.msg_queue = _ServedAtOnce(assoc)
        self._spool = spool
        self._max_bytes = max_bytes
        self._arriving: Arriving | None = None

    def receive_primitive(self, primitive: P_DATA) -> None:
        super().receive_primitive(primitive)
        # Any: pynetdicom's hints know only its own temporary file.
        message: Any = self.message
        if type(message) is C_STORE_RQ and message._data_set_file is None:
            command = message.command_set
            context = self.assoc._accepted_cx[message.context_id or 0]
            arriving = Arriving(
                self._spool,
                _file_meta(
                    command.AffectedSOPClassUID,
                    command.AffectedSOPInstanceUID,
                    context.transfer_syntax[0],
                ),
                self._max_bytes,
            )
            self._arriving = arriving
            # Fragments that shared a PDU with the command are in memory.
            arriving.write(message.data_set.getvalue() if message.data_set else b"")
            message.data_set = BytesIO()
            message._data_set_file = arriving  # type: ignore[assignment]
        elif message is None:
            self._arriving = None

    def arrived(self, event: evt.Event) -> Arriving:
        """The complete object of a C-STORE event."""
        request: Any = event.request
        file = request._dataset_file
        if isinstance(file, Arriving):
            request._dataset_file = None  # ours to close and remove, not pynetdicom's
            return file
        # All of it came in the PDU of its command.
        arriving = Arriving(
            self._spool,
            _file_meta(
                request.AffectedSOPClassUID,
                request.AffectedSOPInstanceUID,
                UID(event.context.transfer_syntax),
            ),
            self._max_bytes,
        )
        arriving.write(event.encoded_dataset(include_meta=False))
        return arriving

    def discard(self) -> None:
        """The association is over: remove what it left half sent."""
        if self._arriving is not None:
            self._arriving.discard()
            self._arriving = None


def _file_meta(sop_class: str, sop_instance: str, transfer_syntax: str) -> bytes:
    """File Meta Information (PS3.10 section 7.1) that follows from the object alone: the same
    object from another sender gives the same bytes.
    """
    elements = b"".join(
        (
            # (0002,0001) has the long form of a length (PS3.5 table 7.1-1).
            bytes.fromhex("020001004f420000020000000001"),
            _element(0x0002, b"UI", sop_class, b"\0"),
            _element(0x0003, b"UI", sop_instance, b"\0"),
            _element(0x0010, b"UI", transfer_syntax, b"\0"),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID, b"\0"),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION, b" "),
        )
    )
    return struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(elements)) + elements


def _element(number: int, vr: bytes, text: str, padding: bytes) -> bytes:
    value = text.encode("ascii")
    value += padding * (len(value) % 2)
    return struct.pack("<HH2sH", 2, number, vr, len(value)) + value


class BoundedSocket(AssociationSocket):
    """Reads a PDU only up to a length, and not for ever."""

    def __init__(
        self, assoc: Association, client_socket: socket.socket, max_pdu: int, idle_s: float
    ) -> None:
        super().__init__(assoc, client_socket=client_socket)
        client_socket.settimeout(idle_s)
        self._limit = max(max_pdu + 6, _MIN_PDU_LIMIT)
        self._deadline_s = _PDU_DEADLINES * idle_s

    @property
    def ready(self) -> bool:
        """Whether there is something to read, now or within a moment: waiting here, the reading
        thread wakes when data comes, and not at its next round.
        """
        sock = self.socket
        if sock is None or not self._is_connected:
            return False
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            return True
        try:
            poll = select.poll()
            poll.register(sock, select.POLLIN)
            return bool(poll.poll(_LOOK_MS))
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # transport connection closed
            return False

    def recv(self, nr_bytes: int) -> bytearray:
        """`nr_bytes` from the peer, or fewer when it closed the connection.

        Raises:
            OSError: the PDU is too long, or comes too slowly.
        """
        sock = self.socket
        if sock is None:
            raise ConnectionError("the connection is closed")
        if nr_bytes > self._limit:
            self.send(_A_ABORT_INVALID_PARAMETER)
            raise ConnectionError(f"a PDU of {nr_bytes} bytes, at most {self._limit} are accepted")
        data = bytearray(nr_bytes)
        view = memoryview(data)
        read = 0
        deadline = time.monotonic() + self._deadline_s
        while read < nr_bytes:
            got = sock.recv_into(view[read:])
            if not got:
                view.release()
                return data[:read]
            read += got
            if time.monotonic() > deadline:
                raise TimeoutError("a PDU came too slowly")
        return data


class EdgeServer(ThreadedAssociationServer):
    """Accepts connections of known addresses; makes associations that are bounded.

    `configure` comes before the first connection.
    """

    daemon_threads = True

    def configure(
        self,
        *,
        spool: Spool,
        max_object_bytes: int,
        idle_s: float,
        known_address: Callable[[str], bool],
        refused: Callable[[str, str], None],
        ended: Callable[[Association], None],
    ) -> None:
        """
        Args:
            refused: called with an address and a reason for a connection that is not accepted.
            ended: called when an association is over, however it ended.
        """
        self.spool = spool
        self.max_object_bytes = max_object_bytes
        self.idle_s = idle_s
        self.known_address = known_address
        self.refused = refused
        self.ended = ended

    def get_request(self) -> tuple[socket.socket, Any]:
        assert self.socket is not None
        client, address = self.socket.accept()
        # Nagle's algorithm would hold each answer back until the peer acknowledges the last.
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        if self.known_address(client_address[0]):
            return True
        self.refused(client_address[0], "unknown address")
        return False


class EdgeRequestHandler(RequestHandler):
    """One connection, in its own thread, until its association is over."""

    server: EdgeServer

    def handle(self) -> None:
        context = self.server.ssl_context
        if context is not None:
            self.request.settimeout(_HANDSHAKE_S)
            try:
                self.request = context.wrap_socket(self.request, server_side=True)
            except (OSError, ssl.SSLError) as error:
                self.server.refused(self.client_address[0], f"TLS: {_reason(error)}")
                self.request.close()
                return
        assoc = self._create_association()
        evt.trigger(assoc, evt.EVT_CONN_OPEN, {"address": self.client_address})
        assoc.start()
        assoc.join()
        dimse = assoc.dimse
        if isinstance(dimse, SpoolingDimse):
            dimse.discard()
        self.server.ended(assoc)

    def _create_association(self) -> Association:
        assoc = super()._create_association()
        server = self.server
        # pynetdicom lets nobody choose the class of either.
        assoc.dimse = SpoolingDimse(assoc, server.spool, server.max_object_bytes)
        assoc.dul.socket = BoundedSocket(
            assoc, self.request, self.ae.maximum_pdu_size, server.idle_s
        )
        assoc.dul._run_loop_delay = 0.0  # the socket waits instead
        # A socket announces its connection (Evt5) when it is made, and this is the second one.
        assoc.dul.event_queue.get_nowait()
        return assoc


def listen_address(address: str, port: int) -> Any:
    """The address as pynetdicom takes it."""
    return AddressInformation(address, port).as_tuple


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or type(error).__name__
