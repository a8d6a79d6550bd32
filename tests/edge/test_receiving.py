"""Scanners into the agent: DCMTK's clients as peers, and peers that mean no good."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import time
import urllib.error
from pathlib import Path

import pytest
from pydicom import uid
from pydicom.dataset import FileMetaDataset

from tests import studies
from tests.edge.cloud import Cloud
from tests.edge.conftest import Files
from tests.edge.running_agent import Dcmtk, RunningAgent, acknowledged, dataset_of, wait_for


def datasets(cloud: Cloud) -> list[bytes]:
    return sorted(dataset_of(one.data) for one in cloud.objects.values())


def test_echoscu_is_answered(agent: RunningAgent, dcmtk: Dcmtk) -> None:
    code, said = dcmtk.run("echoscu", "-aec", "SLICEWATCH", "127.0.0.1", str(agent.port))
    assert code == 0, said


def test_a_study_of_storescu_reaches_the_cloud_byte_for_byte_and_is_closed_with_its_list(
    agent: RunningAgent, cloud: Cloud, dcmtk: Dcmtk, files: Files
) -> None:
    paths = files(12)
    code, said = dcmtk.store(agent.port, paths)
    assert code == 0, said
    assert len(acknowledged(said)) == 12
    wait_for(lambda: cloud.closed, "the study is closed")
    assert datasets(cloud) == sorted(dataset_of(path.read_bytes()) for path in paths)
    study, instances = cloud.closed[0]
    headers = [one.header for one in cloud.objects.values()]
    assert {header.study_instance_uid for header in headers} == {study}
    assert instances == sorted(header.sop_instance_uid for header in headers)
    assert not list((agent.spool / "objects").rglob("*.dcm")), "files stay after they were sent"


def test_dcmsend_with_many_transfer_syntaxes_they_stay_as_they_were_sent(
    agent: RunningAgent, cloud: Cloud, dcmtk: Dcmtk, tmp_path: Path
) -> None:
    # dcmsend offers both uncompressed syntaxes in one context and lets the receiver choose.
    names = ("explicit", "jpeg-2000", "jpeg-ls", "jpeg-lossless-sv1", "rle")
    paths = []
    for number, name in enumerate(names, 1):
        dataset = studies.ct_image(seed=31, number=number, bits_stored=16)
        path = tmp_path / f"{name}.dcm"
        path.write_bytes(studies.to_bytes(dataset, studies.LOSSLESS[name]))
        paths.append(path)
    sr = tmp_path / "sr.dcm"
    sr.write_bytes(studies.to_bytes(studies.structured_report(seed=31)))
    code, said = dcmtk.run(
        "dcmsend", "-aec", "SLICEWATCH", "127.0.0.1", str(agent.port), *paths, sr
    )
    assert code == 0, said
    wait_for(lambda: len(cloud.objects) == 6, "all six arrive")
    syntaxes = {one.header.transfer_syntax_uid for one in cloud.objects.values()}
    assert syntaxes == {studies.LOSSLESS[name] for name in names}


def test_a_storage_class_that_nobody_knows_is_stored(
    agent: RunningAgent, cloud: Cloud, tmp_path: Path
) -> None:
    from pydicom import dcmread
    from pynetdicom import AE

    dataset = studies.base_object("1.2.826.0.1.3680043.9.7.1.2", "OT", seed=32)
    path = tmp_path / "private.dcm"
    path.write_bytes(studies.to_bytes(dataset))
    ae = AE("PRIVATE")
    ae.add_requested_context(dataset.SOPClassUID, uid.ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", agent.port, ae_title="SLICEWATCH")
    assert association.is_established
    assert association.send_c_store(dcmread(path)).Status == 0
    association.release()
    wait_for(lambda: cloud.objects, "it arrives")


def test_the_same_study_twice_is_sent_once(
    agent: RunningAgent, cloud: Cloud, dcmtk: Dcmtk, files: Files
) -> None:
    paths = files(6)
    for _ in range(2):
        code, said = dcmtk.store(agent.port, paths)
        assert code == 0, said
        assert len(acknowledged(said)) == 6
        wait_for(lambda: agent.count("sent") == 6, "all are sent")
    time.sleep(1.5)  # longer than the quiet period
    assert set(cloud.offers.values()) == {1}
    assert len(cloud.closed) == 1


def test_corrected_tags_under_the_same_uids_are_sent_too_and_close_the_study_again(
    agent: RunningAgent, cloud: Cloud, dcmtk: Dcmtk, files: Files
) -> None:
    dcmtk.store(agent.port, files(3, seed=33))
    wait_for(lambda: len(cloud.closed) == 1, "the study is closed")
    dcmtk.store(agent.port, files(3, seed=33, BodyPartExamined="LEG"))
    wait_for(lambda: len(cloud.closed) == 2, "the study is closed again")
    assert len(cloud.objects) == 6
    assert len({one.header.sop_instance_uid for one in cloud.objects.values()}) == 3
    assert len(cloud.closed[1][1] or []) == 3


def test_titles_and_addresses_that_are_not_listed_are_refused(
    tmp_path: Path, cloud: Cloud, dcmtk: Dcmtk, files: Files
) -> None:
    receive = (
        '[receive]\naddress = "127.0.0.1"\nport = {port}\n'
        '[[receive.peer]]\nae_title = "CT1"\naddresses = ["127.0.0.1"]\n'
        '[[receive.peer]]\nae_title = "MR1"\naddresses = ["10.9.9.9"]\n'
    )
    paths = files(1)
    with RunningAgent(tmp_path, cloud.url, receive=receive) as agent:
        assert dcmtk.store(agent.port, paths, "-aet", "CT1")[0] == 0
        for title in ("CT2", "MR1"):
            code, said = dcmtk.store(agent.port, paths, "-aet", title)
            assert code != 0
            assert "Calling AE Title Not Recognized" in said
        code, said = dcmtk.store(agent.port, paths, "-aet", "CT1", called="OTHER")
        assert code != 0
        assert "Called AE Title Not Recognized" in said
        refused = agent.get("status")["refused_arrivals"]
        assert refused == {"unknown calling AE title": 2, "unknown called AE title": 1}


def test_an_unknown_address_is_not_heard(tmp_path: Path, cloud: Cloud, dcmtk: Dcmtk) -> None:
    receive = (
        '[receive]\naddress = "0.0.0.0"\nport = {port}\n'
        '[[receive.peer]]\nae_title = "*"\naddresses = ["127.0.0.1"]\n'
    )
    with RunningAgent(tmp_path, cloud.url, receive=receive) as agent:
        with socket.socket() as stranger:
            stranger.bind(("127.0.0.5", 0))
            stranger.settimeout(10)
            stranger.connect(("127.0.0.1", agent.port))
            assert stranger.recv(1) == b"", "the connection is closed"
        assert dcmtk.run("echoscu", "-aec", "SLICEWATCH", "127.0.0.1", str(agent.port))[0] == 0


def test_hostile_pdus_end_their_connection_and_nothing_else(
    agent: RunningAgent, dcmtk: Dcmtk
) -> None:
    before = _rss(agent)
    for pdu in (
        struct.pack(">BBL", 1, 0, 0xFFFFFFFF),  # an association request of 4 GiB
        struct.pack(">BBL", 4, 0, 0x7FFFFFFF) + bytes(64),  # data before an association
        struct.pack(">BBL", 9, 0, 4) + bytes(4),  # no such type
        struct.pack(">BBL", 1, 0, 200) + os.urandom(200),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x01",
    ):
        with socket.create_connection(("127.0.0.1", agent.port)) as peer:
            peer.settimeout(20)
            peer.sendall(pdu)
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(4096):
                pass
    assert dcmtk.run("echoscu", "-aec", "SLICEWATCH", "127.0.0.1", str(agent.port))[0] == 0
    assert _rss(agent) - before < 50 << 20


def test_an_oversized_pdu_inside_an_association_is_aborted(agent: RunningAgent) -> None:
    with associated(agent) as peer:
        peer.sendall(struct.pack(">BBL", 4, 0, 0x40000000))
        assert peer.recv(1) == b"\x07", "A-ABORT"


def test_a_transfer_that_breaks_off_leaves_nothing_behind(
    agent: RunningAgent, cloud: Cloud, dcmtk: Dcmtk, files: Files
) -> None:
    from pynetdicom.dimse_messages import C_STORE_RQ
    from pynetdicom.dimse_primitives import C_STORE

    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID = uid.UID(studies.CT_STORAGE)
    request.AffectedSOPInstanceUID = uid.UID("1.2.3")
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    command = message.encode_msg(1, 16384)
    with associated(agent) as peer:
        for pdata in command:
            for context, value in pdata.presentation_data_value_list:
                with_data = value[1:].replace(b"\x01\x01", b"\x00\x00")  # (0000,0800)
                _send_data(peer, context, value[:1] + with_data)
        for _ in range(50):  # more than stays in memory
            _send_data(peer, 1, b"\x00" + bytes(100_000))
        arriving = agent.spool / "arriving"
        wait_for(lambda: list(arriving.iterdir()), "the object arrives")
    wait_for(lambda: not list(arriving.iterdir()), "the half object is removed")
    code, said = dcmtk.store(agent.port, files(2))
    assert code == 0, said
    wait_for(lambda: len(cloud.objects) == 2, "others arrive")


def test_what_is_no_dicom_object_is_refused_with_a_status(agent: RunningAgent) -> None:
    from pynetdicom import AE

    ae = AE("CT1")
    ae.add_requested_context(studies.CT_STORAGE, uid.ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", agent.port, ae_title="SLICEWATCH")
    nameless = studies.ct_image(seed=34)
    nameless.file_meta = _meta()
    nameless.StudyInstanceUID = ""
    assert association.send_c_store(nameless).Status == 0xC000
    other = studies.ct_image(seed=34)
    other.file_meta = _meta()
    other.file_meta.MediaStorageSOPInstanceUID = uid.UID("1.2.3.4")
    sound = studies.ct_image(seed=34, number=2)
    sound.file_meta = _meta()
    assert association.send_c_store(sound).Status == 0
    association.release()
    assert agent.get("status")["received_objects"] == 1


def test_a_nearly_full_disk_refuses_associations_before_anything_is_lost(
    tmp_path: Path, cloud: Cloud, dcmtk: Dcmtk, files: Files
) -> None:
    spool = '[spool]\nfolder = "spool"\nmin_free_mib = 1073741824\n'
    with RunningAgent(tmp_path, cloud.url, spool=spool) as agent:
        code, said = dcmtk.store(agent.port, files(1))
        assert code != 0
        assert "Temporary Congestion" in said
        assert agent.get("status")["refused_arrivals"] == {"disk nearly full": 1}
        with pytest.raises(urllib.error.HTTPError) as unfit:
            agent.get("health")
        assert unfit.value.code == 503
        assert "the disk is nearly full" in json.load(unfit.value)["cause"]


def test_a_disk_that_fills_during_an_association_answers_out_of_resources_and_keeps_the_rest(
    tmp_path: Path, cloud: Cloud, dcmtk: Dcmtk, files: Files
) -> None:
    # A bound on what waits, in place of a small disk: the cloud is away, so nothing leaves.
    cloud.down()
    spool = '[spool]\nfolder = "spool"\nmin_free_mib = 1\nmax_mib = 1\n'
    paths = files(2)
    large = paths[0].with_name("large.dcm")
    import numpy as np

    pixels = np.random.default_rng(0).integers(0, 999, (1024, 600)).astype(np.int16)
    large.write_bytes(studies.to_bytes(studies.ct_image(pixels, seed=35)))
    with RunningAgent(tmp_path, cloud.url, spool=spool) as agent:
        _, said = dcmtk.store(agent.port, [paths[0], large, paths[1]])
        assert acknowledged(said) == [paths[0], large]
        assert "Refused: OutOfResources" in said or "A700" in said.upper(), said
        cloud.up()
        wait_for(lambda: len(cloud.objects) == 2, "what was acknowledged arrives")


def test_tls_with_client_certificates(
    tmp_path: Path, cloud: Cloud, dcmtk: Dcmtk, files: Files
) -> None:
    for name in ("edge", "scanner", "stranger"):
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-subj", f"/CN={name}", "-keyout", tmp_path / f"{name}.key"),
                *("-out", tmp_path / f"{name}.crt"),
            ],
            check=True,
            capture_output=True,
        )
    receive = (
        '[receive]\naddress = "127.0.0.1"\nport = {port}\n'
        '[[receive.peer]]\nae_title = "*"\naddresses = ["127.0.0.1"]\n'
        '[receive.tls]\ncertificate = "edge.crt"\nkey = "edge.key"\nclient_ca = "scanner.crt"\n'
    )
    paths = files(2)

    def certificate(name: str) -> tuple[str, ...]:
        key, crt = tmp_path / f"{name}.key", tmp_path / f"{name}.crt"
        return ("+tls", str(key), str(crt), "+cf", str(tmp_path / "edge.crt"))

    with RunningAgent(tmp_path, cloud.url, receive=receive) as agent:
        code, said = dcmtk.store(agent.port, paths, *certificate("scanner"))
        assert code == 0, said
        wait_for(lambda: len(cloud.objects) == 2, "they arrive")
        assert dcmtk.store(agent.port, paths, *certificate("stranger"))[0] != 0
        assert dcmtk.store(agent.port, paths)[0] != 0, "without TLS"
        # A peer that says nothing holds nobody up.
        with socket.create_connection(("127.0.0.1", agent.port)):
            code, said = dcmtk.store(agent.port, paths, *certificate("scanner"))
            assert code == 0, said


def _rss(agent: RunningAgent) -> int:
    import psutil

    rss: int = psutil.Process(agent._process.pid).memory_info().rss
    return rss


def _meta() -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    return meta


def _send_data(peer: socket.socket, context: int, value: bytes) -> None:
    item = struct.pack(">LB", len(value) + 1, context) + value
    peer.sendall(struct.pack(">BBL", 4, 0, len(item)) + item)


def associated(agent: RunningAgent) -> socket.socket:
    """A bare connection with an association for CT images, context 1."""
    from pynetdicom.pdu import A_ASSOCIATE_RQ
    from pynetdicom.pdu_primitives import (
        A_ASSOCIATE,
        ImplementationClassUIDNotification,
        MaximumLengthNotification,
    )
    from pynetdicom.presentation import build_context

    request = A_ASSOCIATE()
    request.application_context_name = uid.UID("1.2.840.10008.3.1.1.1")
    request.calling_ae_title, request.called_ae_title = "BAD", "SLICEWATCH"
    context = build_context(studies.CT_STORAGE, uid.ExplicitVRLittleEndian)
    context.context_id = 1
    request.presentation_context_definition_list = [context]
    maximum = MaximumLengthNotification()
    maximum.maximum_length_received = 16384
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = uid.UID("1.2.3")
    request.user_information = [maximum, implementation]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(request)
    peer = socket.create_connection(("127.0.0.1", agent.port))
    peer.settimeout(20)
    peer.sendall(pdu.encode())
    head = peer.recv(6, socket.MSG_WAITALL)
    assert head[0] == 2, "A-ASSOCIATE-AC"
    peer.recv(int.from_bytes(head[2:]), socket.MSG_WAITALL)
    return peer


@pytest.fixture(autouse=True)
def _no_traceback_in_the_log(tmp_path: Path) -> object:
    yield
    log = tmp_path / "agent.log"
    assert not log.exists() or "Traceback" not in log.read_text()
