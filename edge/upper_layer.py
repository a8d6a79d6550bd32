"""What pynetdicom's upper layer needs before hostile peers may talk to it.

- A PDU longer than was agreed ends the association before memory is spent on it.
- A request is served by the thread that read it, which waits on its socket: no polling between.
- A TLS handshake happens in the connection's own thread: a peer that stays silent holds nobody up.

It reaches into pynetdicom where that has no seam; requirements-edge.txt pins the version.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.transport import (
    AddressInformation,
    AssociationSocket,
    RequestHandler,
    ThreadedAssociationServer,
)

from edge.arriving import Arriving
from edge.spool import DiskFull
from edge.store_lane import StoreLane, StoreRequest, Taken

_A_ABORT_INVALID_PARAMETER = bytes.fromhex("07000000000400000206")  # PS3.8 section 9.3.8
_MIN_PDU_LIMIT = 1 << 20
"""The agreed length binds P-DATA-TF only; an A-ASSOCIATE-RQ with 128 contexts is not small."""
_HANDSHAKE_S = 10.0
_LOOK_MS = 5
_READ_BYTES = 1 << 18
_PDU_DEADLINES = 10
_QUICK_ACK = getattr(socket, "TCP_QUICKACK", None)  # Linux only


class BoundedSocket(AssociationSocket):
    """Reads a PDU only up to a length, and not for ever."""

    def __init__(
        self, assoc: Association, client_socket: socket.socket, max_pdu: int, idle_s: float
    ) -> None:
        super().__init__(assoc, client_socket=client_socket)
        client_socket.settimeout(idle_s)
        self._limit = max(max_pdu + 6, _MIN_PDU_LIMIT)
        self._deadline_s = _PDU_DEADLINES * idle_s
        self._unread = bytearray()
        self._poll = select.poll()
        self._poll.register(client_socket, select.POLLIN)

    @property
    def ready(self) -> bool:
        """Whether there is something to read, now or within a moment: waiting here, the reading
        thread wakes when data comes, and not at its next round.
        """
        sock = self.socket
        if sock is None or not self._is_connected:
            return False
        if self._unread or (isinstance(sock, ssl.SSLSocket) and sock.pending()):
            return True
        try:
            if self._poll.poll(_LOOK_MS):
                return True
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # transport connection closed
        # A lull: the association's own thread may look whether it is to end.
        self.assoc._reactor_checkpoint.set()
        return False

    def unread(self, data: bytes | bytearray) -> None:
        """Let the next `recv` begin with these bytes."""
        self._unread[:0] = data

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
        deadline = time.monotonic() + self._deadline_s
        # More than was asked for: a PDU's head and what follows come in one call.
        while len(self._unread) < nr_bytes:
            got = sock.recv(max(_READ_BYTES, nr_bytes - len(self._unread)))
            if not got:
                break
            self._unread += got
            self._acknowledge(sock)
            if time.monotonic() > deadline:
                raise TimeoutError("a PDU came too slowly")
        data, self._unread = self._unread[:nr_bytes], self._unread[nr_bytes:]
        return data

    @staticmethod
    def _acknowledge(sock: socket.socket) -> None:
        """A peer with Nagle's algorithm on (DCMTK, by default) sends the rest of an object when the
        first of it is acknowledged, which the kernel puts off unless told so each time.
        """
        if _QUICK_ACK is not None:
            sock.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)


class EdgeServer(ThreadedAssociationServer):
    """Accepts connections of known addresses; makes associations that are bounded.

    `configure` comes before the first connection.
    """

    daemon_threads = True

    def configure(
        self,
        *,
        idle_s: float,
        begin: Callable[[StoreRequest], Arriving],
        take: Callable[[Association, StoreRequest, Arriving | DiskFull], Taken],
        known_address: Callable[[str], bool],
        refused: Callable[[str, str], None],
        ended: Callable[[Association], None],
    ) -> None:
        """
        Args:
            begin, take: see `edge.store_lane.StoreLane`.
            refused: called with an address and a reason for a connection that is not accepted.
            ended: called when an association is over, however it ended.
        """
        self.idle_s = idle_s
        self.begin = begin
        self.take = take
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
        take = self.server.take
        lane = StoreLane(assoc, self.server.begin, lambda request, one: take(assoc, request, one))
        assoc.dul._read_pdu_data = lane.read  # type: ignore[method-assign]
        evt.trigger(assoc, evt.EVT_CONN_OPEN, {"address": self.client_address})
        assoc.start()
        assoc.join()
        # Its thread ends first; the one that reads may still take an object in.
        assoc.dul.join()
        lane.discard()
        self.server.ended(assoc)

    def _create_association(self) -> Association:
        assoc = super()._create_association()
        # pynetdicom lets nobody choose its class.
        assoc.dul.socket = BoundedSocket(
            assoc, self.request, self.ae.maximum_pdu_size, self.server.idle_s
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
