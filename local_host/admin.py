"""The admin API: the host's state, its functions, and runs by hand."""

import asyncio
import importlib.metadata
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from local_host.front import HttpFront, presented_key
from local_host.functions import Function
from local_host.keys import FunctionKeys
from local_host.workers import WorkerPool


class ManualTrigger(Protocol):
    """A listener whose functions can be run by hand."""

    def handles(self, name: str) -> bool:
        """Whether the function is one of the listener's."""
        ...

    async def invoke(self, name: str, given: object) -> None:
        """Run the function with that input."""
        ...


class AdminApi:
    """Serves ``/admin``; with keys, to those who have the master key."""

    def __init__(
        self,
        functions: Iterable[Function],
        front: HttpFront,
        listeners: Iterable[ManualTrigger],
        *,
        keys: FunctionKeys | None,
        pool: WorkerPool,
        host_id: str,
    ) -> None:
        self._functions = {function.name.lower(): function for function in functions}
        self._front = front
        self._listeners = list(listeners)
        self._keys = keys
        self._pool = pool
        self._host_id = host_id
        self._started = time.monotonic()
        self._runs: set[asyncio.Task[None]] = set()

    def routes(self) -> list[BaseRoute]:
        """The routes under ``/admin``."""
        return [
            Route("/admin/host/status", self._guarded(self._status), methods=["GET"]),
            Route("/admin/host/ping", self._guarded(self._ping), methods=["GET", "POST"]),
            Route("/admin/functions", self._guarded(self._list), methods=["GET"]),
            Route("/admin/functions/{name}", self._guarded(self._describe), methods=["GET"]),
            Route("/admin/functions/{name}", self._guarded(self._invoke), methods=["POST"]),
        ]

    def _guarded(
        self, endpoint: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def guard(request: Request) -> Response:
            keys = self._keys
            if keys is not None and not keys.admits("", "admin", presented_key(request)):
                return Response(status_code=401)
            return await endpoint(request)

        return guard

    async def _status(self, _request: Request) -> Response:
        return JSONResponse(
            {
                "id": self._host_id,
                "state": "Running",
                "version": f"local ({importlib.metadata.version('azure-functions')})",
                "processUptime": round((time.monotonic() - self._started) * 1000),
                "workerProcessIds": self._pool.pids,
            }
        )

    async def _ping(self, _request: Request) -> Response:
        return PlainTextResponse("")

    async def _list(self, request: Request) -> Response:
        return JSONResponse([self._entry(one, request) for one in self._functions.values()])

    async def _describe(self, request: Request) -> Response:
        function = self._functions.get(request.path_params["name"].lower())
        if function is None:
            return Response(status_code=404)
        return JSONResponse(self._entry(function, request))

    def _entry(self, function: Function, request: Request) -> dict[str, object]:
        entry: dict[str, object] = {
            "name": function.name,
            "language": "python",
            "isDisabled": False,
            "config": {"bindings": [binding.options for binding in function.bindings]},
        }
        for one in self._front.functions:
            if one.function.name == function.name:
                entry["invoke_url_template"] = f"{request.base_url}{one.template}"
        return entry

    async def _invoke(self, request: Request) -> Response:
        function = self._functions.get(request.path_params["name"].lower())
        if function is None:
            return Response(status_code=404)
        listener = next((one for one in self._listeners if one.handles(function.name)), None)
        if listener is None:
            return PlainTextResponse(
                f"{function.trigger.type} functions cannot be run here\n", status_code=400
            )
        try:
            content = await request.json()
        except ValueError:
            return PlainTextResponse('send {"input": …} as JSON\n', status_code=400)
        given = content.get("input") if isinstance(content, dict) else None
        run = asyncio.create_task(listener.invoke(function.name, given))
        self._runs.add(run)
        run.add_done_callback(self._runs.discard)
        return Response(status_code=202)
