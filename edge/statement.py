"""What the cloud is told, at the close of a study, of the screening that was done on site.

The structured report (`edge.look_summary`) tells people; this tells the cloud's own record
(`slicewatch.records.EdgeScreening`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from edge.entries import Entry, Look, State
from edge.journal import Journal
from slicewatch.records import EdgeDetection, EdgeScreening, Outcome, Whereabouts

type Statement = Callable[[str], list[dict[str, Any]]]
"""Of a study by its UID; empty where nothing was screened on site."""


def site_screening(
    journal: Journal, thresholds: Mapping[str, float], outside: Callable[[str], str]
) -> Statement:
    """Gives the function that says, of a study, what was screened here, as JSON.

    Args:
        thresholds: of a detection's score, by ``name@version`` of the model.
        outside: the UID that the cloud knows for one of the site's.
    """

    def state(study: str) -> list[dict[str, Any]]:
        groups: defaultdict[tuple[str, ...], list[tuple[Entry, Look]]] = defaultdict(list)
        for entry, look in journal.looks(study):
            where = _WHEREABOUTS.get(entry.state, Whereabouts.HELD)
            groups[look.model, look.model_sha256, look.outcome, where].append((entry, look))
        return [
            EdgeScreening(
                outcome=Outcome(outcome),
                whereabouts=Whereabouts(where),
                instances=tuple(outside(entry.sop_instance) for entry, _ in members),
                model=model,
                model_sha256=sha256,
                threshold=thresholds.get(model, 0.0),
                detections=tuple(
                    EdgeDetection(outside(entry.sop_instance), look.detections, look.score)
                    for entry, look in members
                    if look.detections
                ),
            ).to_json()
            for (model, sha256, outcome, where), members in sorted(groups.items())
        ]

    return state


_WHEREABOUTS = {State.SENT: Whereabouts.SENT, State.NIGHT: Whereabouts.LATER}
"""What was refused, or set aside, is on site as what is kept is."""
