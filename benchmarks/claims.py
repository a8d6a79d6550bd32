"""Fifty people claim one item of the running app at the same moment."""

from __future__ import annotations

import base64
import json
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from benchmarks.worklist_query import items
from demo.stack import Stack
from slicewatch import settings as app_settings
from slicewatch import worklist
from slicewatch.records import Lane
from slicewatch.storage import Storage

CLAIMS = 50
_ROUNDS = 5


def measure() -> dict[str, float]:
    """``claim_winners_of_50``: how many of them got it, the most of some rounds; and how long the
    last of them waited for the answer, milliseconds. The others' answers are checked to name the
    one who did.
    """
    with tempfile.TemporaryDirectory() as folder, Stack(log=Path(folder, "host.log")) as stack:
        connection = stack.azurite.connection_string
        storage = Storage(app_settings.load({"SLICEWATCH_STORAGE": connection}))
        clinical = (item for item in items(100, "open") if item.lane is Lane.CLINICAL)
        rounds = [
            _claim(stack.url, worklist.add(storage, next(clinical)).id) for _ in range(_ROUNDS)
        ]
    return {
        "claim_winners_of_50": max((winners for winners, _ in rounds), key=lambda n: abs(n - 1)),
        "claim_slowest_ms_of_50": max(slowest for _, slowest in rounds),
    }


def _claim(url: str, item: str) -> tuple[int, float]:
    start = threading.Barrier(CLAIMS)

    def claim(n: int) -> tuple[httpx.Response, float]:
        with httpx.Client(base_url=url, headers=_principal(f"reader-{n}"), timeout=60) as client:
            client.get("/api/me").raise_for_status()  # the connection is there before the race
            start.wait()
            begun = time.perf_counter()
            answer = client.post(f"/api/worklist/{item}/claim")
            return answer, (time.perf_counter() - begun) * 1000

    with ThreadPoolExecutor(CLAIMS) as pool:
        answers = list(pool.map(claim, range(CLAIMS)))
    won = [answer.json()["holder"] for answer, _ in answers if answer.status_code == 200]
    lost = [answer for answer, _ in answers if answer.status_code == 409]
    if len(won) + len(lost) != CLAIMS:
        raise AssertionError(f"{CLAIMS - len(won) - len(lost)} claims were not answered")
    if {answer.json()["item"]["holder"] for answer in lost} - set(won):
        raise AssertionError("an answer names somebody who did not win")
    return len(won), max(took for _, took in answers)


def _principal(user: str) -> dict[str, str]:
    """The header by which a request in development mode acts as somebody."""
    claims = [{"typ": "name", "val": user}, {"typ": "roles", "val": "clinical-reviewer"}]
    told = json.dumps({"auth_typ": "aad", "claims": claims, "name_typ": "name"})
    return {"X-MS-CLIENT-PRINCIPAL": base64.b64encode(told.encode()).decode()}
