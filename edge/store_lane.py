"""The C-STORE service of an association (PS3.7 section 9.1.1), past pynetdicom's state machine.

A scanner waits for the answer to each object before it sends the next, so what one object costs
here is what bounds its rate. C-STORE requests are therefore read, taken and answered where their
PDUs are read; every other message goes to pynetdicom as if nobody had looked at it.
"""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pynetdicom.association import Association

from edge.arriving import Arriving, TooLarge
from edge.spool import DiskFull

_log = logging.getLogger(__name__)

_P_DATA_TF = 0x04
_ESTABLISHED = "Sta6"  # PS3.8 table 9-1: ready for data transfer
_HEAD_BYTES = 6
_MAX_COMMAND_BYTES = 1 << 16
_IS_COMMAND, _IS_LAST = 0x01, 0x02  # PS3.8 annex E.2

_C_STORE_RQ, _C_STORE_RSP = 0x0001, 0x8001
_NO_DATA_SET = 0x0101
_HIGH = b"\x01\x00"
_UID = re.compile(r"[0-9.]{1,64}")

# Elements of a command set (PS3.7 annex E): group 0000.
_AFFECTED_SOP_CLASS_UID = 0x0002
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_RESPONDED_TO = 0x0120
_PRIORITY = 0x0700
_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_AFFECTED_SOP_INSTANCE_UID = 0x1000


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """A C-STORE-RQ (PS3.7 section 9.3.1.1), and the context it came under."""

    context: int
    message: int
    sop_class: str
    sop_instance: str
    transfer_syntax: str
    is_urgent: bool


type Taken = tuple[int, str]
"""Status of a C-STORE-RSP (PS3.4 annex B.2.3) and, where it failed, a comment."""


class ProtocolFault(Exception):
    """The peer's bytes break PS3.7 or PS3.8; its association ends."""


class StoreLane:
    """Stands where pynetdicom reads a PDU; one per association, used by its reading thread only.

    Args:
        begin: gives the place for a request's object. Raises `edge.spool.DiskFull`.
        take: takes the complete object in, or hears why it could not be received; what it returns
            is answered.
    """

    def __init__(
        self,
        association: Association,
        begin: Callable[[StoreRequest], Arriving],
        take: Callable[[StoreRequest, Arriving | DiskFull], Taken],
    ) -> None:
        self._association = association
        self._begin = begin
        self._take = take
        self._read_elsewhere = association.dul._read_pdu_data
        self._held = bytearray()
        self._command = bytearray()
        self._request: StoreRequest | None = None
        self._arriving: Arriving | None = None
        self._full: DiskFull | None = None

    def read(self) -> None:
        """Read a PDU and do what it says, and those that follow at once; or leave it to
        pynetdicom.
        """
        association = self._association
        dul = association.dul
        try:
            while (pdu := self._pdu()) is not None:
                # Nothing but C-STORE for now: the association's own thread need not look.
                association._reactor_checkpoint.clear()
                if not self._data(pdu):
                    break
                if dul._kill_thread or dul.to_provider_queue.qsize() or not self._follows():
                    return
                dul._idle_timer.restart()
        except OSError as error:
            _log.warning("an association ended: %s", error)
            dul.event_queue.put("Evt17")  # transport connection closed
        except (ProtocolFault, TooLarge) as fault:
            _log.warning("an association is aborted: %s", fault)
            dul.event_queue.put("Evt19")  # invalid PDU
        else:
            self._read_elsewhere()
        association._reactor_checkpoint.set()

    def _follows(self) -> bool:
        sock = self._association.dul.socket
        return sock is not None and sock.ready

    def discard(self) -> None:
        """The association is over: remove what it left half sent."""
        if self._arriving is not None:
            self._arriving.discard()
            self._arriving = None

    # --- what arrives ---------------------------------------------------------------------------

    def _pdu(self) -> memoryview | None:
        """The items of a P-DATA-TF PDU; ``None`` for any other, which is left unread."""
        association = self._association
        sock = association.dul.socket
        assert sock is not None
        head = sock.recv(_HEAD_BYTES)
        ours = (
            len(head) == _HEAD_BYTES
            and head[0] == _P_DATA_TF
            and association.dul.state_machine.current_state == _ESTABLISHED
            and association.dimse.message is None
        )
        if not ours:
            sock.unread(head)  # type: ignore[attr-defined]
            return None
        length = int.from_bytes(head[2:])
        body = sock.recv(length)
        if len(body) != length:
            raise ConnectionError("the connection closed within a PDU")
        if self._request is None:
            self._held += head + body
        return memoryview(body)

    def _data(self, items: memoryview) -> bool:
        """``False`` when the message is none of ours; its PDUs are left unread."""
        for context, control, fragment in _values(items):
            if self._request is None:
                if not control & _IS_COMMAND:
                    raise ProtocolFault("a data set without its command")
                self._command += fragment
                if len(self._command) > _MAX_COMMAND_BYTES:
                    raise ProtocolFault("a command set of more than 64 KiB")
                if control & _IS_LAST and not self._commanded(context):
                    return False
            elif control & _IS_COMMAND or context != self._request.context:
                raise ProtocolFault("another message within a data set")
            else:
                self._keep(fragment)
                if control & _IS_LAST:
                    self._complete()
        return True

    def _commanded(self, context: int) -> bool:
        """Begin a C-STORE; ``False`` when the message is another."""
        held, self._held = self._held, bytearray()
        elements, self._command = _elements(bytes(self._command)), bytearray()
        if _number(elements, _COMMAND_FIELD) != _C_STORE_RQ:
            if not held:
                raise ProtocolFault("two messages share a PDU")
            sock = self._association.dul.socket
            sock.unread(held)  # type: ignore[union-attr]
            return False
        if context not in self._association._accepted_cx:
            raise ProtocolFault("a presentation context that was not accepted")
        request = self._request = StoreRequest(
            context=context,
            message=_number(elements, _MESSAGE_ID),
            sop_class=_uid(elements, _AFFECTED_SOP_CLASS_UID),
            sop_instance=_uid(elements, _AFFECTED_SOP_INSTANCE_UID),
            transfer_syntax=self._association._accepted_cx[context].transfer_syntax[0],
            is_urgent=elements.get(_PRIORITY) == _HIGH,
        )
        try:
            self._arriving = self._begin(request)
        except DiskFull as full:
            self._full = full
        if elements.get(_DATA_SET_TYPE) == _NO_DATA_SET.to_bytes(2, "little"):
            self._complete()
        return True

    def _keep(self, fragment: memoryview) -> None:
        if self._arriving is None:
            return  # there is no room: the rest of it is only read
        try:
            self._arriving.write(fragment)
        except DiskFull as full:
            self._full = full
            self.discard()

    def _complete(self) -> None:
        request, outcome = self._request, self._arriving or self._full
        assert request is not None
        assert outcome is not None
        self._request = self._full = None
        try:
            taken = self._take(request, outcome)
        finally:
            self.discard()
        self._answer(request, *taken)

    def _answer(self, request: StoreRequest, status: int, comment: str) -> None:
        """Send a C-STORE-RSP (PS3.7 section 9.3.1.2) in PDUs that the peer takes."""
        association = self._association
        sock = association.dul.socket
        if sock is None:
            return
        command = _command_set(request, status, comment)
        limit = association.requestor.maximum_length or len(command) + _HEAD_BYTES
        step = max(limit - _HEAD_BYTES, 1)
        pdus = bytearray()
        for start in range(0, len(command), step):
            part = command[start : start + step]
            last = _IS_LAST if start + step >= len(command) else 0
            pdus += struct.pack(">BBL", _P_DATA_TF, 0, len(part) + 6)
            pdus += struct.pack(">LBB", len(part) + 2, request.context, _IS_COMMAND | last) + part
        sock.send(bytes(pdus))


def _values(items: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Context, control header and fragment of each Presentation Data Value (PS3.8 9.3.5.1)."""
    at = 0
    while at < len(items):
        if at + 6 > len(items):
            raise ProtocolFault("a PDU ends within the head of an item")
        length, context, control = struct.unpack_from(">LBB", items, at)
        end = at + 4 + length
        if length < 2 or end > len(items):
            raise ProtocolFault("an item is longer than its PDU")
        yield context, control, items[at + 6 : end]
        at = end


def _elements(command: bytes) -> dict[int, bytes]:
    """Values of a command set by element number: implicit VR little endian (PS3.7 6.3.1)."""
    elements: dict[int, bytes] = {}
    at = 0
    while at < len(command):
        if at + 8 > len(command):
            raise ProtocolFault("a command set ends within an element")
        group, element, length = struct.unpack_from("<HHL", command, at)
        at += 8
        if group != 0 or at + length > len(command):
            raise ProtocolFault("a command set is damaged")
        elements[element] = command[at : at + length]
        at += length
    return elements


def _number(elements: dict[int, bytes], element: int) -> int:
    value = elements.get(element, b"")
    if len(value) != 2:
        raise ProtocolFault(f"element (0000,{element:04X}) of a command set is no number")
    return int.from_bytes(value, "little")


def _uid(elements: dict[int, bytes], element: int) -> str:
    text = elements.get(element, b"").rstrip(b" \0").decode("ascii", "replace")
    if not _UID.fullmatch(text):
        raise ProtocolFault(f"element (0000,{element:04X}) of a command set is no UID")
    return text


def _command_set(request: StoreRequest, status: int, comment: str) -> bytes:
    values = [
        (_AFFECTED_SOP_CLASS_UID, _padded(request.sop_class, b"\0")),
        (_COMMAND_FIELD, _C_STORE_RSP.to_bytes(2, "little")),
        (_RESPONDED_TO, request.message.to_bytes(2, "little")),
        (_DATA_SET_TYPE, _NO_DATA_SET.to_bytes(2, "little")),
        (_STATUS, status.to_bytes(2, "little")),
        *([(_ERROR_COMMENT, _padded(comment[:64], b" "))] if comment else []),
        (_AFFECTED_SOP_INSTANCE_UID, _padded(request.sop_instance, b"\0")),
    ]
    body = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in values)
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def _padded(text: str, padding: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    return value + padding * (len(value) % 2)
