"""What the doors of searches share: those of QIDO-RS differ in the level of their results alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import azure.functions as func

from slicewatch import settings, storage
from slicewatch.identity import Role
from slicewatch.limits import Limits
from slicewatch.media_types import DICOM_JSON, JSON
from triggers import access
from triggers.dicomweb import accepted_by, answer, query_of, service_url, uids_of, warning
from triggers.responses import Problem

if TYPE_CHECKING:
    from slicewatch.qido import Found, Level, Parameters

_FUZZY = "The fuzzymatching parameter is not supported. Only literal matching has been performed."
_MORE = "There are additional results that can be requested"


def search(request: func.HttpRequest, level: Level) -> func.HttpResponse:
    """Answer with the matches; see `answer_search`. 400 also for no UIDs in the URL."""
    from slicewatch import qido

    access.require(request, Role.READER)
    scope = uids_of(request)
    store, limits = storage.current(), Limits.of(settings.current())

    def find(query: Parameters, service: str) -> Found:
        return qido.search(store, level, query, scope, service, limits)

    return answer_search(request, qido.keys_of(level), find)


def answer_search(
    request: func.HttpRequest,
    keys: Mapping[str, str],
    find: Callable[[Parameters, str], Found],
) -> func.HttpResponse:
    """Read a query, and answer with what `find` gives for it and the service's base URL.

    200: a DICOM JSON array; 204: there are no matches; 400: an attribute that cannot be matched,
    or a malformed value; 406: other than JSON. A ``Warning`` header says where results were left
    out by ``limit``, and where fuzzy matching was asked for (PS3.18 section 8.3.4).
    """
    from slicewatch import dicom_json, qido

    chosen = accepted_by(request).choose((DICOM_JSON, JSON))
    try:
        query = qido.parse(query_of(request), keys)
    except qido.BadQuery as error:
        raise Problem(
            400, "bad-query", str(error), "see docs/dicomweb.md for what can be searched for"
        ) from None
    service = service_url(request)
    found = find(query, service)
    warnings = [_FUZZY] * query.fuzzy + [_MORE] * found.more
    headers = {"Warning": warning(service, *warnings)} if warnings else {}
    if not found.results:
        return func.HttpResponse(status_code=204, headers=headers)
    return answer(dicom_json.dumps(found.results), chosen, headers=headers)
