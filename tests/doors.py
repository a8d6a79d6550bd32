"""Calling the doors: requests as the host makes them, and a durable engine behind the client."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

import azure.durable_functions as df
import azure.functions as func
import requests
from azure.functions.decorators.function_app import FunctionBuilder
from durabletask.task import OrchestrationContext, Task, when_any
from durabletask.testing import InMemoryOrchestrationBackend
from durabletask.worker import TaskHubGrpcWorker
from requests.adapters import BaseAdapter

from slicewatch import inventory

BASE = "https://slicewatch.example/api"


def request(
    method: str,
    path: str,
    body: bytes = b"",
    *,
    headers: Mapping[str, str] | None = None,
    **route: str,
) -> func.HttpRequest:
    """A request to ``/api/{path}``; `route` are the parameters of the door's route."""
    return func.HttpRequest(
        method, f"{BASE}/{path}", headers=headers or {}, route_params=route, body=body
    )


def function_of(module: ModuleType) -> Callable[..., Any]:
    """The function of a door's module, with its client parameter as the SDK passes it."""
    name = module.__name__.rpartition(".")[2]
    registered = getattr(module, name)._function.get_user_function()
    found: Callable[..., Any] = getattr(registered, "client_function", registered)
    return found


def orchestrator_of(registered: FunctionBuilder) -> Callable[..., Any]:
    """The generator function of an orchestration trigger."""
    handle: Any = registered.build().get_user_function()
    found: Callable[..., Any] = handle.orchestrator_function
    return found


def body_of(response: func.HttpResponse) -> Any:
    return json.loads(response.get_body())


class Bridge(BaseAdapter):
    """Lets a client that stands on `requests` talk to one door."""

    def __init__(self, door: Callable[[func.HttpRequest], func.HttpResponse]) -> None:
        super().__init__()
        self._door = door

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        assert request.url is not None
        assert isinstance(request.body, bytes)
        study = request.url.partition("/studies/")[2]
        answer = self._door(
            func.HttpRequest(
                request.method or "",
                request.url,
                headers=dict(cast("Mapping[str, str]", request.headers)),
                route_params={"study": study} if study else {},
                body=request.body,
            )
        )
        response = requests.Response()
        response.status_code = answer.status_code
        response.headers["Content-Type"] = answer.mimetype
        response._content = answer.get_body()
        response.url = request.url
        return response

    def close(self) -> None:
        pass


def review_study(
    context: OrchestrationContext, plan: dict[str, Any]
) -> Generator[Task[Any], Any, dict[str, Any]]:
    """Stands in for the orchestration: says which events came, publishes and ends when told."""
    status: dict[str, Any] = {"status": "screening", "published": False, "events": [], "marks": 0}
    waiting = {name: context.wait_for_external_event(name) for name in _EVENTS}
    while True:
        context.set_custom_status(status)
        done = yield when_any(list(waiting.values()))
        name = next(name for name, task in waiting.items() if task is done)
        waiting[name] = context.wait_for_external_event(name)
        if name == "test-end":
            return status
        if name == "test-fail":
            context.set_custom_status(status | {"status": "failed"})
            raise RuntimeError("told to fail")
        if name == "test-publish":
            status |= {"status": "flagged", "published": True}
        elif name == "test-mark":
            status["marks"] += 1
        else:
            status["events"].append(name)


_EVENTS = ("late", "close", "test-publish", "test-mark", "test-end", "test-fail")


@dataclass(frozen=True)
class Engine:
    """The durable engine and its client; a study's orchestration is told by its UID."""

    client: df.SyncDurableFunctionsClient

    def publish(self, study: str) -> None:
        self._raise(study, "test-publish")
        self.wait(study, lambda status: status.get("published"))

    def end(self, study: str) -> None:
        self._raise(study, "test-end")
        self.client.wait_for_orchestration_completion(inventory.instance_id(study), timeout=20)

    def fail(self, study: str) -> None:
        self.wait(study, lambda status: status)
        self._raise(study, "test-fail")
        self.client.wait_for_orchestration_completion(inventory.instance_id(study), timeout=20)

    def runtime_status(self, study: str) -> str | None:
        state = self.client.get_orchestration_state(inventory.instance_id(study))
        return None if state is None else state.runtime_status.name

    def wait(self, study: str, until: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Wait until the custom status is as asked; it is returned."""
        deadline = time.monotonic() + 20
        status: dict[str, Any] = {}
        while time.monotonic() < deadline:
            state = self.client.get_orchestration_state(inventory.instance_id(study))
            status = (state.get_custom_status(dict[str, Any]) if state is not None else None) or {}
            if until(status):
                return status
            time.sleep(0.02)
        raise AssertionError(f"the orchestration did not come that far: {status}")

    def events(self, study: str) -> list[str]:
        """The events that came, once those that were raised before this call are among them."""
        # Events keep their order, so a mark that this raises comes after all that were raised.
        marks = self.wait(study, lambda status: status)["marks"]
        self._raise(study, "test-mark")
        return list(self.wait(study, lambda status: status["marks"] > marks)["events"])

    def _raise(self, study: str, event: str) -> None:
        self.client.raise_orchestration_event(inventory.instance_id(study), event)


def running_engine() -> Generator[Engine]:
    """An engine on a free port, with a worker that has `review_study`."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    backend = InMemoryOrchestrationBackend(port=port)
    backend.start()
    worker: Any = TaskHubGrpcWorker(host_address=f"127.0.0.1:{port}")
    worker.add_orchestrator(review_study)
    worker.start()
    client = df.SyncDurableFunctionsClient(json.dumps({"rpcBaseUrl": f"127.0.0.1:{port}"}))
    try:
        yield Engine(client)
    finally:
        client.close()
        worker.stop()
        backend.stop()
