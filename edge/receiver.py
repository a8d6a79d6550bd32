"""The C-STORE SCP: scanners send here (PS3.4 annex B), and verify with C-ECHO (annex A).

Every storage context is accepted with the transfer syntax that its sender prefers, and the
dataset is written as it came. Success is answered when the object is safe on the disk.

==========================  ====================================================================
unknown address             the connection is closed
unknown AE title, or from   A-ASSOCIATE-RJ permanent, calling AE title not recognised
another's address
another called AE title     A-ASSOCIATE-RJ permanent, called AE title not recognised
too many associations       A-ASSOCIATE-RJ transient, local limit exceeded
the disk is nearly full     A-ASSOCIATE-RJ transient, temporary congestion; C-STORE 0xA700
no sound DICOM object       C-STORE 0xC000
other UIDs than announced   C-STORE 0xA900
==========================  ====================================================================
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections import Counter
from typing import Any

from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from edge.arriving import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION, Arriving, file_meta
from edge.config import Peer, Receive, Tls
from edge.intake import Intake
from edge.spool import DiskFull, Spool
from edge.store_lane import StoreRequest, Taken
from edge.study_watch import StudyWatch
from edge.upper_layer import EdgeRequestHandler, EdgeServer, listen_address
from slicewatch.dicom import Header
from slicewatch.limits import Rejected
from slicewatch.records import Reason

_log = logging.getLogger(__name__)

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH_SOP_CLASS = 0xA900
CANNOT_UNDERSTAND = 0xC000

# A-ASSOCIATE-RJ (PS3.8 table 9-21): result, source, reason.
_CALLING_NOT_RECOGNISED = (0x01, 0x01, 0x03)
_CALLED_NOT_RECOGNISED = (0x01, 0x01, 0x07)
_TEMPORARY_CONGESTION = (0x02, 0x03, 0x01)

_POLL_S = 0.2


class Receiver:
    """Listens once `start` was called; `port` says where, also when 0 was asked for."""

    def __init__(self, config: Receive, spool: Spool, intake: Intake, watch: StudyWatch) -> None:
        # Settings of the library, not of an instance: any storage class, and no dump of each PDU
        # and its dataset into the log.
        _config.UNRESTRICTED_STORAGE_SERVICE = True
        _config.LOG_HANDLER_LEVEL = "none"
        self._config = config
        self._spool = spool
        self._intake = intake
        self._watch = watch
        self._lock = threading.Lock()
        self.refusals: Counter[str] = Counter()
        ae = AE(config.ae_title)
        ae.add_supported_context(Verification)
        ae.maximum_pdu_size = config.max_pdu_bytes
        ae.maximum_associations = config.max_associations
        ae.network_timeout = ae.acse_timeout = ae.dimse_timeout = config.idle_s
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION
        server = ae.make_server(
            listen_address(config.address, config.port),
            ae_title=config.ae_title,
            ssl_context=_tls_context(config.tls) if config.tls else None,
            evt_handlers=[
                (evt.EVT_REQUESTED, self._requested),
                (evt.EVT_C_ECHO, _echo),
            ],
            server_class=EdgeServer,
            request_handler=EdgeRequestHandler,
        )
        assert isinstance(server, EdgeServer)
        self._server = server
        ae._servers.append(server)
        self._server.configure(
            idle_s=config.idle_s,
            begin=self._begin,
            take=self._take,
            known_address=lambda address: any(p.has_address(address) for p in config.peers),
            refused=self._refuse,
            ended=self._ended,
        )
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="receiver", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take no more connections and abort those that are open: their peers send again."""
        self._server.shutdown()
        for association in self._server.active_associations:
            association.abort()
        self._thread.join()

    def associations(self) -> int:
        return len(self._server.active_associations)

    # --- events ---------------------------------------------------------------------------------

    def _requested(self, event: evt.Event) -> None:
        association = event.assoc
        primitive: Any = association.requestor.primitive
        calling = primitive.calling_ae_title.strip()
        address = association.requestor.address
        if self._peer(calling, address) is None:
            self._reject(association, _CALLING_NOT_RECOGNISED, "unknown calling AE title")
        elif (
            self._config.require_called_ae_title
            and primitive.called_ae_title.strip() != self._config.ae_title
        ):
            self._reject(association, _CALLED_NOT_RECOGNISED, "unknown called AE title")
        else:
            try:
                self._intake.check_space()
            except DiskFull as full:
                _log.error("association refused: %s", full)
                self._reject(association, _TEMPORARY_CONGESTION, "disk nearly full")

    def _reject(self, association: Association, code: tuple[int, int, int], reason: str) -> None:
        self._refuse(association.requestor.address, reason)
        association.acse.send_reject(*code)
        association.is_rejected = True
        # Ends the upper layer once the rejection is out: the peer closes, or its time runs out.
        association.kill()

    def _begin(self, request: StoreRequest) -> Arriving:
        self._intake.check_space()
        meta = file_meta(request.sop_class, request.sop_instance, request.transfer_syntax)
        return Arriving(self._spool, meta, self._config.max_object_bytes)

    def _take(
        self, association: Association, request: StoreRequest, arriving: Arriving | DiskFull
    ) -> Taken:
        calling = association.requestor.ae_title.strip()
        address = association.requestor.address
        peer = self._peer(calling, address)
        try:
            if isinstance(arriving, DiskFull):
                raise arriving
            header = self._intake.take(
                arriving.finish(),
                source=f"{calling}@{address}",
                sha256=arriving.sha256,
                urgent=bool(peer and peer.urgent) or request.is_urgent,
                expected=lambda header: _check_announced(header, request),
            )
        except DiskFull as full:
            _log.error("C-STORE refused: %s", full)
            self._refuse(address, "the disk is nearly full")
            return OUT_OF_RESOURCES, "the disk is nearly full"
        except Rejected as rejected:
            status = {
                Reason.TOO_LARGE: OUT_OF_RESOURCES,
                Reason.BAD_HEADER: DOES_NOT_MATCH_SOP_CLASS,
            }.get(rejected.reason, CANNOT_UNDERSTAND)
            self._refuse(address, rejected.reason.value)
            return status, rejected.reason.value
        self._watch.touch(header.study_instance_uid, association)
        return SUCCESS, ""

    def _ended(self, association: Association) -> None:
        self._watch.association_ended(association, released=bool(association.is_released))

    def _refuse(self, address: str, reason: str) -> None:
        _log.warning("%s: refused: %s", address, reason)
        with self._lock:
            self.refusals[reason] += 1

    def _peer(self, ae_title: str, address: str) -> Peer | None:
        return next((p for p in self._config.peers if p.fits(ae_title, address)), None)


def _echo(_: evt.Event) -> int:
    return SUCCESS


def _check_announced(header: Header, request: StoreRequest) -> None:
    """Raises `Rejected` when the dataset is another object than its C-STORE request said."""
    announced = (request.sop_class, request.sop_instance)
    if (header.sop_class_uid, header.sop_instance_uid) != announced:
        raise Rejected(Reason.BAD_HEADER, "other SOP UIDs than the request names")


def _tls_context(tls: Tls) -> ssl.SSLContext:
    """TLS 1.2 and up (PS3.15 annex B.12); the peer's certificate is asked for where a CA is set."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls.certificate, tls.key)
    if tls.client_ca is not None:
        context.load_verify_locations(tls.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
