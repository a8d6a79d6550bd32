"""A study on its whole way, with its custody log, and the evidence bundle of it."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from slicewatch import (
    assessment,
    custody_record,
    evidence,
    inventory,
    publication,
    screening,
    triage,
    worklist,
)
from slicewatch.arrival import Intake, Offered
from slicewatch.custody import Log
from slicewatch.custody_chain import Signer
from slicewatch.decision import Decision, Verdict
from slicewatch.evidence_messages import Evidence, EvidencePart
from slicewatch.limits import Limits
from slicewatch.messages import AssessRequest, InventoryRequest
from slicewatch.model_registry import Registry
from slicewatch.settings import Settings
from slicewatch.storage import CUSTODY, INCOMING, Storage
from slicewatch.worklist import Reader
from tests import studies
from tests.tiny_model import write_tiny_model

NOW = "2026-01-01T00:00:00"


READER = Reader("reader-1", "Reader One")


@dataclass(frozen=True)
class Case:
    """A study whose way is logged."""

    storage: Storage
    settings: Settings
    log: Log
    study: str

    def receive(self, objects: list[bytes], door: str = "stow-rs") -> None:
        receipts = Intake(self.storage, self.settings, door).receive_all(map(Offered, objects))
        custody_record.arrivals(
            self.storage, self.settings, receipts, door=door, sender={"address": "192.0.2.7"}
        )

    def review(self, folder: Path) -> None:
        """Screen, assess, publish and decide what came."""
        write_tiny_model(folder)
        registry = Registry.load(folder)
        request = InventoryRequest(self.study, flush=True)
        taken = inventory.take(
            self.storage, request, models_digest=registry.digest, batch_size=2, batch_wait_s=0
        )
        for batch in taken.batches:
            entries = inventory.manifest(self.storage, self.study, batch)
            load = partial(self.storage.read, INCOMING)
            slices = screening.screen(
                [(one.blob, one.sha256, partial(load, one.blob)) for one in entries],
                registry,
                Limits.of(self.settings),
            )
            counts = screening.count(batch, slices)
            inventory.write_results(
                self.storage, self.study, batch, registry.digest, slices, counts
            )
            custody_record.screening(self.storage, self.settings, self.study, counts, registry)
        assessed = assessment.assess(
            self.storage,
            AssessRequest(self.study, NOW, NOW, NOW),
            registry=registry,
            policy=triage.load_policy(self.settings.policy),
        )
        publication.publish(self.storage, self.settings, assessed)
        custody_record.publication(self.storage, self.settings, self.study, assessed.generation)
        for item in worklist.of_study(self.storage, self.study):
            custody_record.claim(self.storage, self.settings, item.id, READER)
            said = Decision(Verdict.CONFIRMED, comment="ok").to_json()
            custody_record.decide(self.storage, self.settings, item.id, READER, said)
            better = Decision(Verdict.CHANGED, comment="smaller").to_json()
            custody_record.correct(
                self.storage, self.settings, item.id, READER, better, "a closer look"
            )

    def export(self, name: str = "first") -> tuple[Evidence, bytes]:
        parts = evidence.plan(self.storage, self.log, self.study, name).parts
        for number in range(parts):
            evidence.pack(self.storage, EvidencePart(self.study, name, number))
        made = evidence.build(self.storage, self.log, self.study, name, "Reader Łukasz")
        return made, self.storage.read(CUSTODY, made.bundle)


def slices(seed: int, count: int = 3) -> tuple[str, list[bytes]]:
    """StudyInstanceUID and objects of a small study."""
    return studies.new_uid("study", seed), list(
        studies.study_bytes(count, seed=seed, lesion=range(count)).values()
    )


def new_signer() -> Signer:
    return Signer(Ed25519PrivateKey.generate())


class Files(dict[str, bytes]):
    """A bundle's files by their paths; short where a failing test shows it."""

    def __repr__(self) -> str:
        return f"<{len(self)} files>"


def unzipped(bundle: bytes) -> Files:
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        return Files({name: archive.read(name) for name in archive.namelist()})


def zipped(files: dict[str, bytes], path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path
