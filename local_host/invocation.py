"""Calls a function of the app: decodes its inputs, runs it, encodes what it returns."""

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import azure.functions as func
from azure.functions import meta

from local_host.channel import (
    Failure,
    Hello,
    HttpCall,
    HttpReply,
    Invocation,
    Payload,
    RetryState,
    Value,
    payload_of,
)
from local_host.functions import (
    ACTIVITY,
    DURABLE_NAME_KEYS,
    Binding,
    Function,
)

_SPOOL_THREADS = 4
_thread_local = threading.local()


@dataclass(frozen=True)
class LoadedFunction:
    """A function's index entry and its Python callable."""

    function: Function
    call: Callable[..., Any]


class _TraceContext(func._abc.TraceContext):
    def __init__(self, trace_parent: str) -> None:
        self._trace_parent = trace_parent

    @property
    def trace_state(self) -> str:
        return ""

    @property
    def trace_parent(self) -> str:
        return self._trace_parent

    @property
    def attributes(self) -> dict[str, str]:
        return {}


class _RpcError(func._abc.RpcException):
    def __init__(self, failure: Failure) -> None:
        self._failure = failure

    @property
    def source(self) -> str:
        return self._failure.type

    @property
    def stack_trace(self) -> str:
        return self._failure.stack

    @property
    def message(self) -> str:
        return self._failure.message


class _RetryContext(func._abc.RetryContext):
    def __init__(self, state: RetryState) -> None:
        self._state = state

    @property
    def retry_count(self) -> int:
        return self._state.count

    @property
    def max_retry_count(self) -> int:
        return self._state.maximum

    @property
    def exception(self) -> Any:
        return _RpcError(self._state.error) if self._state.error is not None else None


class InvocationContext(func.Context):
    """The ``context`` parameter of a function."""

    def __init__(self, invocation: Invocation, directory: str) -> None:
        self._invocation = invocation
        self._directory = directory

    @property
    def invocation_id(self) -> str:
        return self._invocation.id

    @property
    def thread_local_storage(self) -> Any:
        return _thread_local

    @property
    def function_name(self) -> str:
        return self._invocation.function

    @property
    def function_directory(self) -> str:
        return self._directory

    @property
    def trace_context(self) -> Any:
        return _TraceContext(self._invocation.trace_parent)

    @property
    def retry_context(self) -> Any:
        state = self._invocation.retry
        return _RetryContext(state) if state is not None else None


class OutParameter(func.Out[Any]):
    """The object behind a ``func.Out`` parameter."""

    def __init__(self) -> None:
        self._value: Any = None

    def set(self, val: Any) -> None:
        self._value = val

    def get(self) -> Any:
        return self._value


class Invoker:
    """Runs the functions of one worker process; sync ones on the executor's threads."""

    def __init__(self, loaded: list[LoadedFunction], executor: Executor, hello: Hello) -> None:
        self._loaded = {one.function.name: one for one in loaded}
        self._parameters = {
            one.function.name: frozenset(inspect.signature(one.call).parameters) for one in loaded
        }
        self._executor = executor
        self._spooler = ThreadPoolExecutor(_SPOOL_THREADS, thread_name_prefix="spool")
        self._hello = hello

    async def run(self, invocation: Invocation) -> dict[str, Value]:
        """Call the function; the values of its outputs, ``$return`` among them.

        Raises:
            Exception: Whatever the function raises, or what cannot be decoded or encoded.
        """
        loaded = self._loaded[invocation.function]
        function = loaded.function
        parameters = self._parameters[function.name]
        outs = {
            binding.name: OutParameter()
            for binding in function.outputs
            if binding.name in parameters
        }
        loop = asyncio.get_running_loop()
        durable = function.trigger.type in DURABLE_NAME_KEYS
        if durable:
            arguments = self._inputs(function, invocation)
        else:  # inputs and outputs may be long, and must not hold up the other invocations
            arguments = await loop.run_in_executor(
                self._spooler, self._inputs, function, invocation
            )
        arguments |= outs
        bound = {binding.name for binding in function.bindings}
        if "context" in parameters and "context" not in bound:
            arguments["context"] = InvocationContext(invocation, self._hello.app_dir)
        result = await self._call(loaded.call, arguments, invocation.id)
        if durable:
            return self._outputs(function, result, outs)
        return await loop.run_in_executor(self._spooler, self._outputs, function, result, outs)

    async def _call(
        self, call: Callable[..., Any], arguments: dict[str, Any], invocation_id: str
    ) -> Any:
        if inspect.iscoroutinefunction(call):
            return await call(**arguments)
        run = partial(contextvars.copy_context().run, _in_thread, invocation_id, call, arguments)
        return await asyncio.get_running_loop().run_in_executor(self._executor, run)

    def _inputs(self, function: Function, invocation: Invocation) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            function.trigger.name: _decode_trigger(function.trigger, invocation)
        }
        for binding in function.inputs:
            if binding.type == "durableClient":
                value: Value | None = Value("string", self._hello.durable_client)
            else:
                value = invocation.inputs.get(binding.name)
            arguments[binding.name] = _decode(binding.type, value, {})
        return arguments

    def _outputs(
        self, function: Function, result: Any, outs: Mapping[str, OutParameter]
    ) -> dict[str, Value]:
        if function.trigger.type in DURABLE_NAME_KEYS:
            return {"$return": _encode(function.trigger.type, result)} | self._set_outs(
                function, outs
            )
        encoded = self._set_outs(function, outs)
        for binding in function.outputs:
            if binding.name == "$return":
                if binding.type == "http":
                    encoded["$return"] = self._http_value(result)
                elif result is not None:
                    encoded["$return"] = self._spooled(_encode(binding.type, result))
        return encoded

    def _set_outs(self, function: Function, outs: Mapping[str, OutParameter]) -> dict[str, Value]:
        types = {binding.name: binding.type for binding in function.outputs}
        encoded = {}
        for name, out in outs.items():
            value = out.get()
            if value is None:
                continue
            if types[name] == "http":
                encoded[name] = self._http_value(value)
            else:
                encoded[name] = self._spooled(_encode(types[name], value))
        return encoded

    def _spooled(self, value: Value) -> Value:
        data = value.value.encode() if isinstance(value.value, str) else value.value
        return Value(value.type, payload_of(data, self._hello.spool_dir))

    def _http_value(self, result: Any) -> Value:
        if result is None:
            return Value("http", HttpReply(204, (), Payload()))
        if isinstance(result, str):
            headers: tuple[tuple[str, str], ...] = (("content-type", "text/plain; charset=utf-8"),)
            body = payload_of(result.encode(), self._hello.spool_dir)
            return Value("http", HttpReply(200, headers, body))
        if not isinstance(result, func.HttpResponse):
            raise TypeError(
                f"an HTTP function returns HttpResponse, str or None, not {type(result).__name__}"
            )
        headers = tuple((str(name), str(value)) for name, value in result.headers.items())
        if "content-type" not in result.headers:
            content_type = result.mimetype
            if content_type.startswith("text/"):
                content_type += f"; charset={result.charset}"
            headers += (("content-type", content_type),)
        body = payload_of(result.get_body(), self._hello.spool_dir)
        return Value("http", HttpReply(int(result.status_code), headers, body))


def _in_thread(invocation_id: str, call: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    _thread_local.invocation_id = invocation_id
    return call(**arguments)


def _converter(binding_type: str) -> Any:
    converter = meta.get_binding_registry().get(binding_type)  # type: ignore[no-untyped-call]
    if converter is None:
        raise NotImplementedError(f"no converter for binding {binding_type}")
    return converter


def _decode_trigger(binding: Binding, invocation: Invocation) -> Any:
    value = invocation.trigger.value
    if isinstance(value, HttpCall):
        return func.HttpRequest(
            value.method,
            value.url,
            headers=value.headers,
            params=value.params,
            route_params=value.route_params,
            body=value.body.read(),
        )
    return _decode(binding.type, invocation.trigger, invocation.metadata)


def _decode(binding_type: str, value: Value | None, metadata: Mapping[str, Value]) -> Any:
    if value is None:
        return None
    content = value.value.read() if isinstance(value.value, Payload) else value.value
    return _converter(binding_type).decode(
        meta.Datum(content, value.type),
        trigger_metadata={name: meta.Datum(v.value, v.type) for name, v in metadata.items()},
    )


def _encode(binding_type: str, result: Any) -> Value:
    datum = _converter(binding_type).encode(result, expected_type=None)
    if binding_type == ACTIVITY and datum.value is None:
        return Value("json", "null")
    return Value(datum.type, datum.value)
