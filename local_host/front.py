"""The HTTP front: HTTP functions, the admin API, and the webhooks of the extensions."""

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import BinaryIO
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute
from starlette.routing import Route as StarletteRoute

from local_host.channel import SPOOL_THRESHOLD, HttpCall, HttpReply, Outcome, Payload, Value
from local_host.errors import HostError, WorkerLostError
from local_host.executor import FunctionExecutor
from local_host.functions import HTTP, Function, of_trigger
from local_host.keys import FunctionKeys
from local_host.routes import Route
from local_host.settings import HostSettings

_CHUNK_BYTES = 1 << 18
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "QUERY"})
_ALL_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY")


class HttpFunction:
    """An HTTP function with its route."""

    def __init__(self, function: Function, prefix: str) -> None:
        self.function = function
        methods = function.trigger.options.get("methods") or _ALL_METHODS
        self.methods = tuple(str(method).upper() for method in methods)
        template = function.trigger.text("route", function.name).strip("/")
        self.template = "/".join(part for part in (prefix, template) if part)
        try:
            self.route = Route(self.template)
        except ValueError as error:
            raise HostError(f"function {function.name}: {error}") from None
        self.auth_level = function.trigger.text("authLevel", "function").lower()


class HttpFront:
    """Finds the function for a request and runs it."""

    def __init__(
        self,
        functions: Iterable[Function],
        settings: HostSettings,
        keys: FunctionKeys | None,
        spool_dir: str,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._spool_dir = spool_dir
        self._executor: FunctionExecutor | None = None
        self.functions = sorted(
            (HttpFunction(one, settings.route_prefix) for one in of_trigger(functions, HTTP)),
            key=lambda one: one.route.rank,
        )

    def app(self, executor: FunctionExecutor, routes: Iterable[BaseRoute]) -> Starlette:
        """The ASGI app: ``routes`` first, then the functions."""
        self._executor = executor
        middleware = []
        if self._settings.cors_origins:
            middleware.append(
                Middleware(
                    CORSMiddleware,
                    allow_origins=self._settings.cors_origins,
                    allow_credentials=self._settings.cors_credentials,
                    allow_methods=["*"],
                    allow_headers=["*"],
                )
            )
        catch_all = StarletteRoute("/{path:path}", self._serve, methods=list(_ALL_METHODS))
        return Starlette(routes=[*routes, catch_all], middleware=middleware)

    async def _serve(self, request: Request) -> Response:
        raw_path = _raw_path(request)
        for candidate in self.functions:
            if request.method in candidate.methods:
                parameters = candidate.route.match(raw_path)
                if parameters is not None:
                    return await self._call(candidate, request, parameters)
        if raw_path in ("", "/"):
            return PlainTextResponse("Your Functions app is up and running.\n")
        return Response(status_code=404)

    async def _call(
        self, target: HttpFunction, request: Request, parameters: dict[str, str]
    ) -> Response:
        function = target.function
        if self._keys is not None and not self._keys.admits(
            function.name, target.auth_level, presented_key(request)
        ):
            return Response(status_code=401)
        try:
            body = await spool_body(request, self._spool_dir)
        except ClientDisconnect:
            return Response(status_code=400)
        try:
            return await self._run(function, request, parameters, body)
        finally:
            body.discard()

    async def _run(
        self, function: Function, request: Request, parameters: dict[str, str], body: Payload
    ) -> Response:
        assert self._executor is not None
        call = HttpCall(
            method=request.method,
            url=_raw_url(request),
            headers=_single_headers(request.headers),
            params=dict(parse_qsl(request.url.query, keep_blank_values=True)),
            route_params=parameters,
            body=body,
        )
        try:
            outcome = await self._executor.run(
                function,
                Value("http", call),
                data=_binding_data(function, call),
                trace_parent=request.headers.get("traceparent", ""),
                repeatable=request.method in _SAFE_METHODS,
            )
        except asyncio.CancelledError:
            # The server cancels what still runs when the time for it is over, and only then.
            return PlainTextResponse(
                f"The host stops and has cut '{function.name}' off. Whether the call took effect "
                "is not known.\n",
                status_code=503,
            )
        except WorkerLostError:
            return PlainTextResponse(
                f"The worker process that ran '{function.name}' ended before it answered. "
                "Whether the call took effect is not known.\n",
                status_code=502,
            )
        if outcome.failure is not None:
            return Response(status_code=500)
        return reply_of(function, outcome)


def _binding_data(function: Function, call: HttpCall) -> dict[str, object]:
    """What the expressions of other bindings may name: JSON body, query, route parameters."""
    body: object = None
    if any("{" in one.text("path") + one.text("queueName") for one in function.bindings):
        try:
            body = json.loads(call.body.data or b"null")
        except ValueError:
            body = None
    fields = body if isinstance(body, dict) else {}
    return {**fields, **call.params, **call.route_params}


def _raw_path(request: Request) -> str:
    """The path as it came over the wire, percent-encoded."""
    raw: bytes = request.scope["raw_path"]
    return raw.decode("ascii", "replace").partition("?")[0]


def _raw_url(request: Request) -> str:
    query = f"?{request.url.query}" if request.url.query else ""
    return f"{request.url.scheme}://{request.url.netloc}{_raw_path(request)}{query}"


def presented_key(request: Request) -> str:
    """The function key of a request: query ``code``, or the header ``x-functions-key``."""
    return request.query_params.get("code") or request.headers.get("x-functions-key", "")


def _single_headers(headers: Headers) -> dict[str, str]:
    """Header names as they came, repeated ones joined: a function sees each name once."""
    single: dict[str, str] = {}
    for name, value in headers.items():
        joined = "; " if name == "cookie" else ","
        single[name] = f"{single[name]}{joined}{value}" if name in single else value
    return single


async def spool_body(request: Request, spool_dir: str) -> Payload:
    """The request's body: small ones in memory, others straight into a spool file."""
    chunks: list[bytes] = []
    size = 0
    stream = request.stream()
    async for chunk in stream:
        chunks.append(chunk)
        size += len(chunk)
        if size > SPOOL_THRESHOLD:
            return await _spool_rest(chunks, stream, spool_dir)
    return Payload(b"".join(chunks))


async def _spool_rest(chunks: list[bytes], stream: AsyncIterator[bytes], spool_dir: str) -> Payload:
    descriptor, path = tempfile.mkstemp(dir=spool_dir)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(chunks)
            chunks.clear()
            async for chunk in stream:
                file.write(chunk)
    except BaseException:
        Path(path).unlink()
        raise
    return Payload(path=path)


def reply_of(function: Function, outcome: Outcome) -> Response:
    """The HTTP response that a function's ``$return`` or HTTP output asks for."""
    name = next((one.name for one in function.outputs if one.type == "http"), "$return")
    value = outcome.outputs.get(name)
    if value is None:
        return Response(status_code=204)
    reply: HttpReply = value.value
    if reply.body.path is None:
        response = Response(reply.body.data, status_code=reply.status)
    else:
        file = Path(reply.body.path).open("rb")  # noqa: SIM115 - _stream closes it
        reply.body.discard()  # the open file is enough, and leaves nothing behind
        response = StreamingResponse(_stream(file), status_code=reply.status)
        response.headers["content-length"] = str(os.fstat(file.fileno()).st_size)
    for header, text in reply.headers:
        if header.lower() not in ("content-length", "transfer-encoding", "connection"):
            response.headers.append(header, text)
    return response


async def _stream(file: BinaryIO) -> AsyncIterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
