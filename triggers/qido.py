"""What the doors of QIDO-RS share: they differ in the level of their results alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import azure.functions as func

from slicewatch import settings, storage
from slicewatch.limits import Limits
from slicewatch.media_types import DICOM_JSON, JSON
from triggers.dicomweb import accepted_by, answer, query_of, service_url, uids_of
from triggers.responses import Problem

if TYPE_CHECKING:
    from slicewatch.qido import Level

_FUZZY = "The fuzzymatching parameter is not supported. Only literal matching has been performed."
_MORE = "There are additional results that can be requested"


def search(request: func.HttpRequest, level: Level) -> func.HttpResponse:
    """Answer with the matches as a DICOM JSON array.

    200; 204: there are none; 400: no UIDs in the URL, an attribute that cannot be matched, or a
    malformed value; 406: other than JSON. A ``Warning`` header says where results were left out
    by ``limit``, and where fuzzy matching was asked for (PS3.18 section 8.3.4).
    """
    from slicewatch import dicom_json, qido

    chosen = accepted_by(request).choose((DICOM_JSON, JSON))
    scope = uids_of(request)
    try:
        query = qido.parse(level, query_of(request))
    except qido.BadQuery as error:
        raise Problem(
            400, "bad-query", str(error), "see docs/dicomweb.md for what can be searched for"
        ) from None
    limits = Limits.of(settings.current())
    service = service_url(request)
    found = qido.search(storage.current(), query, scope, service, limits)
    warnings = [_FUZZY] * query.fuzzy + [_MORE] * found.more
    said = ", ".join(f"299 {service}: {text}" for text in warnings)
    headers = {"Warning": said} if said else {}
    if not found.results:
        return func.HttpResponse(status_code=204, headers=headers)
    return answer(dicom_json.dumps(found.results), chosen, headers=headers)
