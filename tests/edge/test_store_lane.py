"""C-STORE as peers may send it: in any cut of PDUs, with other messages between, and damaged."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread, uid
from pynetdicom import AE, StoragePresentationContexts
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from edge.store_lane import ProtocolFault, _elements, _values
from tests import studies
from tests.edge.cloud import Cloud
from tests.edge.conftest import Files
from tests.edge.running_agent import RunningAgent, dataset_of, wait_for
from tests.edge.test_receiving import associated

_COMMAND_LAST, _DATA_LAST = b"\x03", b"\x02"


def command_of(path: Path, context: int = 1) -> bytes:
    """The command set of a C-STORE-RQ for a file."""
    dataset = dcmread(path)
    request = C_STORE()
    request.MessageID, request.Priority = 7, 2
    request.AffectedSOPClassUID = dataset.SOPClassUID
    request.AffectedSOPInstanceUID = dataset.SOPInstanceUID
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    [pdata] = message.encode_msg(context, 16384)
    [(_, value)] = pdata.presentation_data_value_list
    return value[1:].replace(b"\x01\x01", b"\x00\x00")  # (0000,0800): with a data set


def item(value: bytes, context: int = 1) -> bytes:
    return struct.pack(">LB", len(value) + 1, context) + value


def pdu(*items: bytes) -> bytes:
    body = b"".join(items)
    return struct.pack(">BBL", 4, 0, len(body)) + body


def status_of(peer: socket.socket) -> int:
    """The status of the C-STORE-RSP that comes next, in one PDU."""
    head = peer.recv(6, socket.MSG_WAITALL)
    assert head[0] == 4, "P-DATA-TF"
    body = peer.recv(int.from_bytes(head[2:]), socket.MSG_WAITALL)
    return int.from_bytes(_elements(body[6:])[0x0900], "little")


@pytest.mark.parametrize("cut", ["one PDU", "one PDU an item", "every byte of the command"])
def test_any_cut_of_a_c_store_into_pdus_is_taken(
    agent: RunningAgent, cloud: Cloud, files: Files, cut: str
) -> None:
    [path] = files(1)
    command, data = command_of(path), dataset_of(path.read_bytes())
    half = len(data) // 2
    items = [
        item(_COMMAND_LAST + command),
        item(b"\x00" + data[:half]),
        item(_DATA_LAST + data[half:]),
    ]
    with associated(agent) as peer:
        match cut:
            case "one PDU":
                peer.sendall(pdu(*items))
            case "one PDU an item":
                peer.sendall(b"".join(pdu(one) for one in items))
            case _:
                for at in range(len(command) - 1):
                    peer.sendall(pdu(item(b"\x01" + command[at : at + 1])))
                peer.sendall(pdu(item(_COMMAND_LAST + command[-1:]), *items[1:]))
        assert status_of(peer) == 0
    wait_for(lambda: cloud.objects, "it arrives")
    [stored] = cloud.objects.values()
    assert dataset_of(stored.data) == data


def test_echoes_between_objects_are_answered_and_a_small_pdu_length_is_kept_to(
    agent: RunningAgent, cloud: Cloud, files: Files
) -> None:
    ae = AE("CT1")
    ae.maximum_pdu_size = 64  # of what it takes: an answer needs several
    ae.requested_contexts = StoragePresentationContexts[:100]
    ae.add_requested_context(studies.CT_STORAGE, uid.ExplicitVRLittleEndian)
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", agent.port, ae_title="SLICEWATCH")
    assert association.is_established
    for path in files(3):
        assert association.send_c_store(dcmread(path)).Status == 0
        assert association.send_c_echo().Status == 0
    association.release()
    assert association.is_released
    wait_for(lambda: len(cloud.objects) == 3, "they arrive")


@pytest.mark.parametrize(
    "broken",
    [
        pdu(item(_DATA_LAST + b"data")),  # without a command
        pdu(b"\x00\x00"),
        pdu(struct.pack(">LB", 99, 1) + b"\x03"),
        pdu(item(_COMMAND_LAST + b"\x00\x00\x00\x01\xff\xff\xff\xff")),
        pdu(item(b"\x01" + bytes(1 << 15))) * 3,  # a command without an end
    ],
)
def test_what_breaks_the_protocol_ends_its_association_and_nothing_else(
    agent: RunningAgent, cloud: Cloud, files: Files, broken: bytes
) -> None:
    [path] = files(1)
    command, data = command_of(path), dataset_of(path.read_bytes())
    whole = pdu(item(_COMMAND_LAST + command), item(_DATA_LAST + data))
    with associated(agent) as bad, associated(agent) as good:
        bad.sendall(broken)
        assert bad.recv(1) == b"\x07", "A-ABORT"
        good.sendall(whole)
        assert status_of(good) == 0
    wait_for(lambda: cloud.objects, "the other arrives")


def test_a_context_that_was_not_accepted_ends_the_association(
    agent: RunningAgent, files: Files
) -> None:
    with associated(agent) as peer:
        peer.sendall(pdu(item(_COMMAND_LAST + command_of(files(1)[0]), context=3)))
        assert peer.recv(1) == b"\x07", "A-ABORT"


def test_an_object_over_its_bound_ends_its_association_and_leaves_nothing(
    tmp_path: Path, cloud: Cloud, files: Files
) -> None:
    receive = (
        '[receive]\naddress = "127.0.0.1"\nport = {port}\nmax_object_bytes = 100000\n'
        '[[receive.peer]]\nae_title = "*"\naddresses = ["127.0.0.1"]\n'
    )
    [path] = files(1)
    with RunningAgent(tmp_path, cloud.url, receive=receive) as agent:
        with associated(agent) as peer:
            peer.sendall(pdu(item(_COMMAND_LAST + command_of(path))))
            for _ in range(3):
                peer.sendall(pdu(item(b"\x00" + bytes(40_000))))
            assert peer.recv(1) == b"\x07", "A-ABORT"
        assert not list((agent.spool / "arriving").iterdir())
        assert agent.get("health") == {"status": "ok"}


@given(st.binary(max_size=200))
def test_bytes_that_are_no_command_set_are_a_fault_of_the_peer(data: bytes) -> None:
    try:
        elements = _elements(data)
    except ProtocolFault:
        return
    assert sum(8 + len(value) for value in elements.values()) <= len(data)


@given(st.lists(st.binary(min_size=1, max_size=40)), st.binary(max_size=20))
def test_items_are_read_as_they_were_written_and_damage_is_a_fault(
    values: list[bytes], rest: bytes
) -> None:
    written = b"".join(item(value) for value in values)
    read = [
        (context, control, bytes(one)) for context, control, one in _values(memoryview(written))
    ]
    assert read == [(1, value[0], value[1:]) for value in values]
    try:
        found = list(_values(memoryview(written + rest)))
    except ProtocolFault:
        return
    assert len(found) >= len(values)
