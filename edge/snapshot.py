"""How the agent is doing, for people and for monitoring."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from edge.deidentify import Deidentifier
from edge.entries import PENDING, State
from edge.intake import Intake
from edge.journal import Journal
from edge.receiver import Receiver
from edge.spool import Spool
from edge.study_watch import StudyWatch
from edge.uploader import Uploader

_EVENTS = 10


class Snapshot(Collector):
    """Asks the parts when it is asked; also a collector of Prometheus."""

    def __init__(
        self,
        spool: Spool,
        journal: Journal,
        intake: Intake,
        uploader: Uploader,
        watch: StudyWatch,
        receiver: Receiver | None,
        deidentifier: Deidentifier | None,
    ) -> None:
        self._spool = spool
        self._journal = journal
        self._intake = intake
        self._uploader = uploader
        self._watch = watch
        self._receiver = receiver
        self._deidentifier = deidentifier
        self._started = time.monotonic()

    def take(self) -> dict[str, Any]:
        """JSON: sizes in bytes, times in seconds."""
        facts = journal_facts(self._journal)
        return facts | {
            "up_s": round(time.monotonic() - self._started, 1),
            "free_bytes": self._spool.free_bytes(),
            "received_objects": self._intake.taken,
            "received_bytes": self._intake.taken_bytes,
            "sent_objects": self._uploader.sent,
            "sent_bytes": self._uploader.sent_bytes,
            "bytes_a_second": round(self._uploader.rate()),
            "arriving_studies": self._watch.live(),
            "associations": self._receiver.associations() if self._receiver else 0,
            "refused_arrivals": self._refusals(),
            "cloud_failures_in_a_row": self._uploader.backoff.failures,
            "next_attempt_s": round(self._uploader.backoff.left(), 1),
            "last_error": self._uploader.last_error if self._uploader.backoff.failures else "",
        }

    def collect(self) -> Iterator[Metric]:
        facts = self.take()
        objects = GaugeMetricFamily(
            "slicewatch_edge_objects", "Objects in the journal", labels=["state"]
        )
        sizes = GaugeMetricFamily(
            "slicewatch_edge_object_bytes", "Their bytes", labels=["state"], unit="bytes"
        )
        for state, (count, size) in facts["states"].items():
            objects.add_metric([state], count)
            sizes.add_metric([state], size)
        yield objects
        yield sizes
        for name, text, key in _GAUGES:
            yield GaugeMetricFamily(f"slicewatch_edge_{name}", text, value=facts[key])
        for name, text, key in _COUNTERS:
            yield CounterMetricFamily(f"slicewatch_edge_{name}", text, value=facts[key])
        refusals = CounterMetricFamily(
            "slicewatch_edge_refused_arrivals",
            "Associations and objects that were not taken",
            labels=["reason"],
        )
        for reason, count in facts["refused_arrivals"].items():
            refusals.add_metric([reason], count)
        yield refusals
        errors = CounterMetricFamily("slicewatch_edge_upload_errors", "Failed requests and objects")
        errors.add_metric([], self._uploader.errors)
        yield errors
        if self._deidentifier is not None:
            yield CounterMetricFamily(
                "slicewatch_edge_burned_in_warnings",
                "Objects sent although text may be burned into their pixels",
                value=self._deidentifier.warnings,
            )

    def _refusals(self) -> dict[str, int]:
        return dict(self._receiver.refusals) if self._receiver else {}


_GAUGES = (
    ("free_bytes", "Free bytes of the spool's disk", "free_bytes"),
    ("oldest_pending_seconds", "Age of the oldest object that has to leave", "oldest_pending_s"),
    ("arriving_studies", "Studies that are not over", "arriving_studies"),
    ("associations", "Open associations", "associations"),
    ("cloud_failures_in_a_row", "Failed requests since the last answer", "cloud_failures_in_a_row"),
)
_COUNTERS = (
    ("received_objects", "Objects acknowledged", "received_objects"),
    ("received_bytes", "Bytes acknowledged", "received_bytes"),
    ("sent_objects", "Objects that the cloud stored", "sent_objects"),
    ("sent_bytes", "Bytes that the cloud stored", "sent_bytes"),
    ("offered_again", "Objects offered again because their answer was lost", "offered_again"),
)


def journal_facts(journal: Journal) -> dict[str, Any]:
    """What the journal alone tells, also of an agent that does not run."""
    totals = journal.totals()
    oldest = journal.oldest_pending()
    age = (datetime.now(UTC) - datetime.fromisoformat(oldest)).total_seconds() if oldest else 0.0
    return {
        "states": {state.value: totals.get(state, (0, 0)) for state in State},
        "pending_objects": sum(totals.get(state, (0, 0))[0] for state in PENDING),
        "pending_bytes": sum(totals.get(state, (0, 0))[1] for state in PENDING),
        # The wall clock may have jumped since.
        "oldest_pending_s": round(max(0.0, age), 1),
        "offered_again": journal.in_doubt(),
        "events": [
            {"at": at, "kind": kind, "text": text} for at, kind, text in journal.events(_EVENTS)
        ],
    }
