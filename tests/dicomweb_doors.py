"""DICOMweb clients in front of the doors: requests find their door by its route, as in the host."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import partial
from importlib import import_module
from typing import Any

import azure.durable_functions as df
import azure.functions as func
import requests
from dicomweb_client import DICOMwebClient
from requests.adapters import BaseAdapter

from local_host.routes import Route
from slicewatch.arrival import Intake, Offered, Receipt
from slicewatch.settings import Settings
from slicewatch.storage import Storage
from tests.doors import BASE, function_of

URL = f"{BASE}/dicomweb"


class Doors(BaseAdapter):
    """Answers HTTP requests with the functions of these names, and the durable client they want."""

    def __init__(
        self, names: Iterable[str], durable: df.SyncDurableFunctionsClient | None = None
    ) -> None:
        super().__init__()
        self._doors = []
        for name in names:
            module = import_module(f"triggers.{name}")
            trigger = getattr(module, name)._function.get_trigger()
            methods = {method.value for method in trigger.methods}
            door = function_of(module)
            if "client" in inspect.signature(door).parameters:
                door = partial(door, client=durable)
            self._doors.append((Route(trigger.route), methods, door))
        self._doors.sort(key=lambda door: door[0].rank)

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        assert request.url is not None
        path = request.url.removeprefix(f"{BASE}/").partition("?")[0]
        for route, methods, door in self._doors:
            found = route.match(path)
            if found is not None and request.method in methods:
                body = request.body or b""
                assert isinstance(body, str | bytes)
                answer = door(
                    func.HttpRequest(
                        request.method or "",
                        request.url,
                        headers={key: str(text) for key, text in request.headers.items()},
                        route_params=found,
                        body=body.encode() if isinstance(body, str) else body,
                    )
                )
                return _response(request, answer)
        raise AssertionError(f"no door for {request.method} {path}")

    def close(self) -> None:
        pass


def _response(request: requests.PreparedRequest, answer: func.HttpResponse) -> requests.Response:
    response = requests.Response()
    response.status_code = answer.status_code
    response.headers.update(dict(answer.headers))
    response.headers["Content-Type"] = answer.mimetype
    response._content = answer.get_body()
    response.url = request.url or ""
    response.request = request
    return response


def session(names: Iterable[str]) -> requests.Session:
    """A session whose requests go to these doors."""
    opened = requests.Session()
    opened.mount("https://", Doors(names))
    return opened


def client(opened: requests.Session) -> DICOMwebClient:
    return DICOMwebClient(URL, session=opened)


def store(storage: Storage, settings: Settings, *objects: bytes) -> list[Receipt]:
    """Let objects arrive, as a door does."""
    receipts = Intake(storage, settings, "test").receive_all(map(Offered, objects))
    assert all(receipt.reason is None for receipt in receipts)
    return receipts
