"""A worker process: it loads the app, says what it found, and runs what the host sends.

Started by the host as ``python -m local_host.worker FD``; FD is its end of a socket pair. It
ends when the host closes the other end, or dies.
"""

import asyncio
import importlib
import inspect
import json
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from azure.functions.decorators.function_app import Function as IndexedFunction
from azure.functions.decorators.function_app import FunctionRegister

from local_host.channel import (
    Failure,
    Hello,
    Invocation,
    LoadFailure,
    Outcome,
    Ready,
    encode,
    read_message,
)
from local_host.functions import Function, parse_function
from local_host.invocation import Invoker, LoadedFunction

_HOST_FOLDER = str(Path(__file__).resolve().parent)


class _UtcFormatter(logging.Formatter):
    converter = staticmethod(time.gmtime)


def configure_logging(level: str) -> None:
    """Log to stderr, a line a record, times in UTC."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _UtcFormatter("[%(asctime)s.%(msecs)03dZ] %(message)s", "%Y-%m-%dT%H:%M:%S")
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    quiet = max(root.level, logging.WARNING)
    for name in ("azure", "urllib3", "durabletask", "azure.durable_functions", "httpx"):
        logging.getLogger(name).setLevel(quiet)


def _retry_policy(function: IndexedFunction) -> dict[str, Any] | None:
    policy = function.get_settings_dict("retry_policy")
    return dict(policy) if policy else None


def _check_parameters(function: Function, user_function: Callable[..., Any]) -> None:
    """Refuse a function whose parameters and bindings do not match, as the real worker does."""
    parameters = inspect.signature(user_function).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    bound = {binding.name for binding in function.bindings} - {"$return"}
    missing = bound - set(parameters)
    if missing:
        raise ValueError(
            f"function {function.name}: the bindings name {', '.join(sorted(missing))}, but the "
            "Python function has no such parameter"
        )
    unbound = [
        name
        for name, parameter in parameters.items()
        if name not in bound | {"context"} and parameter.default is inspect.Parameter.empty
    ]
    if unbound:
        raise ValueError(
            f"function {function.name}: the parameter {', '.join(unbound)} has no binding"
        )


def load_app(app_dir: str, script_file: str) -> list[LoadedFunction]:
    """Import the app's script and index its functions.

    Raises:
        Exception: Whatever the app raises at import, or ValueError for an app object or a
            function that cannot be indexed.
    """
    if not (Path(app_dir) / script_file).is_file():
        raise ValueError(f"{app_dir} holds no {script_file}")
    module = importlib.import_module(script_file.removesuffix(".py").replace("/", "."))
    apps = {
        id(value): value for value in vars(module).values() if isinstance(value, FunctionRegister)
    }
    if len(apps) != 1:
        raise ValueError(
            f"{script_file} must define one app (FunctionApp, DFApp, …); it defines {len(apps)}"
        )
    loaded = []
    for indexed in next(iter(apps.values())).get_functions():
        name = str(indexed.get_function_name())
        bindings = [json.loads(raw) for raw in indexed.get_raw_bindings()]
        function = parse_function(name, bindings, _retry_policy(indexed))
        user_function = indexed.get_user_function()
        _check_parameters(function, user_function)
        loaded.append(LoadedFunction(function, user_function))
    return loaded


def describe_failure(error: BaseException) -> Failure:
    """The exception as the host reports it; the host's own frames are left out."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(_HOST_FOLDER)]
    stack = "".join(traceback.format_list(own))
    stack += "".join(traceback.format_exception_only(error))
    if error.__cause__ is not None:
        stack = "".join(traceback.format_exception(error.__cause__)) + "\n" + stack
    return Failure(type(error).__name__, str(error), stack)


def _drop_import_path(path: str) -> None:
    """The app sees its own modules and the installed ones, not those beside the host."""
    sys.path[:] = [entry for entry in sys.path if entry != path]
    kept = [one for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one != path]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, kept))
    if not os.environ["PYTHONPATH"]:
        del os.environ["PYTHONPATH"]


class Worker:
    """The process' end of the channel."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._running: set[asyncio.Task[None]] = set()

    async def serve(self) -> int:
        """Load the app and run invocations until the host hangs up; the exit status."""
        hello = await read_message(self._reader)
        assert isinstance(hello, Hello)
        configure_logging(hello.log_level)
        sys.path.insert(0, hello.app_dir)
        if hello.import_path_to_drop is not None:
            _drop_import_path(hello.import_path_to_drop)
        try:
            loaded = load_app(hello.app_dir, hello.script_file)
        except BaseException as error:  # SystemExit at import is a broken app too
            failure = describe_failure(error)
            await self._send(LoadFailure(f"{failure.type}: {failure.message}", failure.stack))
            return 1
        executor = ThreadPoolExecutor(hello.thread_count, thread_name_prefix="function")
        invoker = Invoker(loaded, executor, hello)
        await self._send(Ready(tuple(one.function for one in loaded)))
        while True:
            try:
                message = await read_message(self._reader)
            except (asyncio.IncompleteReadError, ConnectionError):
                return 0
            task = asyncio.create_task(self._run(invoker, message))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _run(self, invoker: Invoker, invocation: Invocation) -> None:
        try:
            outputs = await invoker.run(invocation)
            outcome = Outcome(invocation.id, outputs)
        except BaseException as error:  # the app's SystemExit ends the call, not the worker
            outcome = Outcome(invocation.id, failure=describe_failure(error))
        await self._send(outcome)

    async def _send(self, message: object) -> None:
        self._writer.write(encode(message))
        await self._writer.drain()


async def _main(descriptor: int) -> int:
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=descriptor))
    return await Worker(reader, writer).serve()


def main() -> None:
    """Run the worker; never returns, so that a running thread cannot keep the process alive."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach the group; the host decides
        signal.signal(number, signal.SIG_IGN)
    status = asyncio.run(_main(int(sys.argv[1])))
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
