"""Looking first: screening on site, and what leaves when because of it.

Objects are screened as they arrive. A detection makes its study urgent, and its slice leaves at
once. What nobody could look at (no model, no image, damaged) leaves at once too: only a slice
that was screened without a detection may wait. When the study is over, `route` decides for those,
and where something stays or waits a summary leaves in its place (`edge.look_summary`).
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence

from edge.config import LookFirst
from edge.entries import Entry, Look, State
from edge.journal import Journal
from edge.look_summary import Summarise
from edge.spool import Damaged, Spool
from edge.uploader import Uploader
from slicewatch.limits import DEFAULT_LIMITS
from slicewatch.model_registry import Registry
from slicewatch.records import Outcome, SliceResult
from slicewatch.screening import screen

_log = logging.getLogger(__name__)

_AT_A_TIME = 8
_IDLE_S = 0.5
_STATES = {"send": State.READY, "night": State.NIGHT, "summary": State.KEPT}


class LookingFirst:
    """Screens in one thread from `start` to `stop`."""

    def __init__(
        self,
        config: LookFirst,
        registry: Registry,
        spool: Spool,
        journal: Journal,
        uploader: Uploader,
        summarise: Summarise,
    ) -> None:
        self._config = config
        self._registry = registry
        self._hashes = {model.key: model.sha256 for model in registry.models}
        self._spool = spool
        self._journal = journal
        self._uploader = uploader
        self._summarise = summarise
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="look-first", daemon=True)
        self.looked = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self.look() and not self.decide():
                self._stop.wait(_IDLE_S)

    def look(self) -> int:
        """Screen some of what waits for it; returns how many objects."""
        entries = self._journal.entries(State.LOOKING, limit=_AT_A_TIME)
        if not entries:
            return 0
        try:
            results = screen(
                [(e.sha256, e.sha256, self._spool.path(e.sha256).read_bytes) for e in entries],
                self._registry,
                DEFAULT_LIMITS,
                threads=self._config.threads,
                forensics=False,  # the cloud measures what it receives
            )
        except Exception:
            # A file that vanished, a model that does not load, memory, or inference, whose
            # errors have no base of their own: whatever it is must not hold objects back.
            _log.exception("screening on site failed; its objects are sent")
            self._journal.note("error", "screening on site failed")
            results = []
        by_object: defaultdict[str, list[SliceResult]] = defaultdict(list)
        for result in results:
            by_object[result.blob].append(result)
        for entry in entries:
            self._settle(entry, by_object[entry.sha256])
        self._uploader.wake()
        return len(entries)

    def _settle(self, entry: Entry, results: Sequence[SliceResult]) -> None:
        if not results:
            self._journal.settle([entry], State.READY)
            return
        look = look_of(entry.sha256, results, self._hashes, self._config.score)
        self._journal.note_look(look)
        if look.detections:
            self._journal.mark_urgent(entry.study)
        holds = self._config.calm != "send" or self._config.rest != "send"
        may_wait = look.outcome == Outcome.SCREENED and not look.detections and holds
        self._journal.settle([entry], State.WAITING if may_wait else State.READY)
        self.looked += 1

    def decide(self) -> int:
        """Route what waits of one study that is over; returns how many objects."""
        for study in self._journal.studies(over=True):
            waiting = self._journal.entries(State.WAITING, study=study.uid)
            if not waiting or self._journal.entries(State.LOOKING, study=study.uid, limit=1):
                continue
            looks = self._journal.looks(study.uid)
            routes = route(self._config, waiting, looks)
            self._write_summary(looks, routes)
            for state in set(routes.values()):
                chosen = [entry for entry in waiting if routes[entry.sha256] is state]
                self._journal.settle(chosen, state)
            self._uploader.wake()
            return len(waiting)
        return 0

    def _write_summary(self, looks: Sequence[tuple[Entry, Look]], routes: dict[str, State]) -> None:
        """Before anything is held: a crash in between writes the same summary again."""
        if set(routes.values()) <= {State.READY}:
            return
        try:
            entry = self._summarise(looks, routes)
        except Damaged as damaged:
            _log.error("the summary of a study cannot be written: %s", damaged)
            return
        self._journal.add(entry)


def look_of(
    sha256: str, results: Sequence[SliceResult], hashes: dict[str, str], score: float
) -> Look:
    """What the results of an object's frames say of it: the worst of them counts.

    Args:
        hashes: SHA-256 of the weights by ``name@version``.
        score: detections below it do not count.
    """
    detections = [d for result in results for d in result.detections if d.score >= score]
    outcomes = {result.outcome for result in results}
    outcome = next(
        (o for o in (Outcome.REJECTED, Outcome.NOT_SCREENED) if o in outcomes), Outcome.SCREENED
    )
    model = next((result.model for result in results if result.model), "")
    return Look(
        sha256=sha256,
        outcome=outcome.value,
        model=model,
        model_sha256=hashes.get(model, ""),
        score=max((d.score for d in detections), default=0.0),
        detections=len(detections),
        position=_position(results[0]),
    )


def route(
    config: LookFirst, waiting: Iterable[Entry], looks: Sequence[tuple[Entry, Look]]
) -> dict[str, State]:
    """Where each waiting object of a study goes, by its SHA-256.

    Slices within `context_slices` of a detection, in the order of their series, leave at once.
    """
    suspicious = any(look.detections for _, look in looks)
    other = _STATES[config.rest if suspicious else config.calm]
    near: set[str] = set()
    series: defaultdict[str, list[tuple[Entry, Look]]] = defaultdict(list)
    for entry, look in looks:
        series[entry.series].append((entry, look))
    for members in series.values():
        members.sort(key=_order)
        for index, (_, look) in enumerate(members):
            if look.detections:
                low = max(0, index - config.context_slices)
                near.update(e.sha256 for e, _ in members[low : index + config.context_slices + 1])
    return {e.sha256: State.READY if e.sha256 in near else other for e in waiting}


def _order(member: tuple[Entry, Look]) -> tuple[float, int]:
    entry, look = member
    return (look.position if look.position is not None else 0.0, entry.instance_number)


def _position(result: SliceResult) -> float | None:
    """Along the slice normal, mm (PS3.3 section C.7.6.2.1.1)."""
    geometry = result.geometry
    if geometry is None or not geometry.position or not geometry.orientation:
        return None
    rx, ry, rz, cx, cy, cz = geometry.orientation
    normal = (ry * cz - rz * cy, rz * cx - rx * cz, rx * cy - ry * cx)
    return sum(n * p for n, p in zip(normal, geometry.position, strict=True))
