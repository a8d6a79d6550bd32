"""The host: puts the parts together, starts them in order, and stops them in order."""

import asyncio
import contextlib
import errno
import json
import logging
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from local_host.admin import AdminApi
from local_host.bindings import StorageBindings
from local_host.blob_listener import BlobListener
from local_host.channel import Hello
from local_host.durable import DurableDispatcher
from local_host.engine import MAX_MESSAGE_BYTES, Engine
from local_host.errors import HostError
from local_host.executor import FunctionExecutor
from local_host.front import HttpFront
from local_host.functions import (
    BLOB,
    DURABLE_NAME_KEYS,
    HTTP,
    QUEUE,
    TIMER,
    Function,
    of_trigger,
)
from local_host.keys import FunctionKeys
from local_host.management import DurableWebhooks, client_configuration
from local_host.queue_listener import QueueListener
from local_host.settings import HostSettings
from local_host.storage import StorageAccounts
from local_host.timers import TimerListener
from local_host.workers import WorkerPool

_STORAGE_THREADS = 32
_SIGNAL_POLL_S = 0.1
_CUT_OFF_GRACE_S = 2.0
_LOGGER = logging.getLogger("local_host")
Listener = TimerListener | QueueListener | BlobListener


@dataclass(frozen=True)
class StartOptions:
    """What the command line adds to the settings. ``secrets_dir`` is None without keys."""

    address: str
    secrets_dir: Path | None
    shutdown_timeout: float
    functions: tuple[str, ...]


@dataclass(frozen=True)
class _Site:
    """Where this run can be reached, where it spools, and its keys."""

    base_url: str
    spool_dir: str
    keys: FunctionKeys | None


@dataclass(frozen=True)
class _Parts:
    """What serves."""

    server: uvicorn.Server
    dispatcher: DurableDispatcher
    listeners: list[Listener]
    executor: FunctionExecutor
    banner: str


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: the host decides when it stops."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(address: str, port: int) -> socket.socket:
    """Listen on the port (0: a free one); raises HostError where it is taken."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # asyncio switches Nagle's algorithm off only where the protocol is spelled out; with it on,
    # each answer waits 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise HostError(
                f"port {port} is taken; stop the process that uses it, or name another port "
                "with --port (0 takes a free one)"
            ) from None
        raise HostError(f"cannot listen on {address} port {port}: {error.strerror}") from None
    return listener


def describe(functions: Iterable[Function], front: HttpFront, base_url: str) -> str:
    """The list of functions as Core Tools prints it."""
    lines = ["", "Functions:", ""]
    urls = {one.function.name: one for one in front.functions}
    every = sorted(functions, key=lambda one: (one.trigger.type != HTTP, one.name.lower()))
    for function in every:
        if function.trigger.type == HTTP:
            target = urls[function.name]
            methods = ",".join(target.methods)
            lines.append(f"\t{function.name}: [{methods}] {base_url}/{target.template}")
        else:
            lines.append(f"\t{function.name}: {function.trigger.type}")
        lines.append("")
    return "\n".join(lines)


class Host:
    """One run of the host."""

    def __init__(self, settings: HostSettings, options: StartOptions) -> None:
        self._settings = settings
        self._options = options
        self._stop = asyncio.Event()
        self._signals = 0
        self._dispatcher: DurableDispatcher | None = None

    async def run(self) -> None:
        """Serve until a signal; raises HostError where it cannot start, or cannot go on."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(_STORAGE_THREADS, "storage"))
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)
        spool_dir = tempfile.mkdtemp(prefix="functions-spool-")
        try:
            with bind(self._options.address, self._settings.port) as listener:
                await self._serve(listener, spool_dir)
        finally:
            shutil.rmtree(spool_dir, ignore_errors=True)

    def _on_signal(self) -> None:
        self._signals += 1
        self._stop.set()

    def _on_work(self) -> None:
        if self._dispatcher is not None:
            self._dispatcher.wake()

    async def _serve(self, listener: socket.socket, spool_dir: str) -> None:
        settings, options = self._settings, self._options
        shown = "127.0.0.1" if options.address in ("0.0.0.0", "::") else options.address
        keys = FunctionKeys(options.secrets_dir) if options.secrets_dir else None
        if keys is not None:
            _LOGGER.info("Function keys are in %s", keys.path)
        site = _Site(f"http://{shown}:{listener.getsockname()[1]}", spool_dir, keys)
        engine = Engine(self._on_work, replace_running=settings.durable.replace_running)
        client = client_configuration(
            settings.durable.hub_name, site.base_url, engine.start(), keys, MAX_MESSAGE_BYTES
        )
        pool = self._pool(site, client)
        try:
            if await self._completes(pool.start()):
                parts = await self._assemble(site, engine, client, pool)
                await self._serve_until_stopped(parts, pool, listener)
        finally:
            await pool.stop()
            await asyncio.to_thread(engine.stop, 0.5)

    def _pool(self, site: _Site, client: dict[str, Any]) -> WorkerPool:
        settings = self._settings
        hello = Hello(
            app_dir=str(settings.app_dir),
            script_file=settings.script_file,
            log_level=settings.log_level,
            thread_count=settings.thread_count,
            durable_client=json.dumps(client),
            spool_dir=site.spool_dir,
            import_path_to_drop=None,
        )
        environment = {
            "AZURE_FUNCTIONS_ENVIRONMENT": "Development",
            "FUNCTIONS_WORKER_RUNTIME": "python",
            "WEBSITE_HOSTNAME": site.base_url.removeprefix("http://"),
        }
        return WorkerPool(hello, settings.worker_count, environment | dict(settings.app_settings))

    async def _assemble(
        self, site: _Site, engine: Engine, client: dict[str, Any], pool: WorkerPool
    ) -> _Parts:
        settings, keys = self._settings, site.keys
        functions = self._served(pool.functions)
        front = HttpFront(functions, settings, keys, site.spool_dir)
        accounts = StorageAccounts(settings, site.spool_dir)
        limit = settings.function_timeout
        executor = FunctionExecutor(
            pool,
            StorageBindings(accounts, settings),
            None if limit is None else limit.total_seconds(),
        )
        listeners = await self._listeners(functions, executor, accounts)
        self._dispatcher = DurableDispatcher(engine, executor, functions, settings.durable)
        admin = AdminApi(
            functions, front, listeners, keys=keys, pool=pool, host_id=accounts.host_id
        )
        webhooks = DurableWebhooks(engine, settings.durable.hub_name, client, keys)
        routes = [*admin.routes(), *webhooks.routes()]
        for listener in listeners:
            if isinstance(listener, BlobListener):
                routes += listener.routes(keys)
        server = _Server(
            uvicorn.Config(
                front.app(executor, routes),
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=max(1, round(self._options.shutdown_timeout)),
                server_header=False,
            )
        )
        listing = describe(functions, front, site.base_url)
        banner = f"{listing}\nListening on {site.base_url}"
        return _Parts(server, self._dispatcher, listeners, executor, banner)

    async def _serve_until_stopped(
        self, parts: _Parts, pool: WorkerPool, listener: socket.socket
    ) -> None:
        if self._stop.is_set():
            return
        tasks = [
            asyncio.create_task(parts.server.serve(sockets=[listener])),
            asyncio.create_task(parts.dispatcher.run()),
            *(asyncio.create_task(one.run()) for one in parts.listeners),
        ]
        print(parts.banner, flush=True)
        try:
            await self._until_broken(pool, tasks)
        finally:
            await self._wind_down(parts, tasks)

    async def _completes(self, start: Coroutine[Any, Any, None]) -> bool:
        """Whether the start came to its end before a signal came."""
        starting = asyncio.ensure_future(start)
        stopped = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if starting.done():
            starting.result()
            return True
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return False

    def _disabled(self, function: Function) -> bool:
        settings = self._settings.app_settings
        value = settings.get(f"AzureWebJobs.{function.name}.Disabled") or settings.get(
            f"AzureWebJobs_{function.name}_Disabled", ""
        )
        return value.lower() in ("true", "1")

    def _served(self, functions: tuple[Function, ...]) -> list[Function]:
        wanted = set(self._options.functions)
        unknown = wanted - {function.name for function in functions}
        if unknown:
            raise HostError(f"--functions names {', '.join(sorted(unknown))}, which the app lacks")
        served = []
        for function in functions:
            reason = function.not_served()
            if self._disabled(function):
                _LOGGER.info("Function '%s' is disabled", function.name)
            elif reason is not None:
                _LOGGER.error("The '%s' function is in error: %s", function.name, reason)
            elif (
                not wanted
                or function.name in wanted
                or function.trigger.type in (DURABLE_NAME_KEYS)
            ):
                served.append(function)
        if not served:
            _LOGGER.warning("No functions found in %s", self._settings.script_file)
        return served

    async def _listeners(
        self, functions: list[Function], executor: FunctionExecutor, accounts: StorageAccounts
    ) -> list[Listener]:
        listeners: list[Listener] = []
        settings = self._settings
        timers = of_trigger(functions, TIMER)
        if timers:
            listeners.append(TimerListener(timers, executor, settings.app_settings))
        queues = of_trigger(functions, QUEUE)
        if queues:
            listeners.append(QueueListener(queues, executor, accounts, settings))
        blobs = of_trigger(functions, BLOB)
        if blobs:
            listeners.append(BlobListener(blobs, executor, accounts, settings))
        await asyncio.to_thread(accounts.check, [*queues, *blobs])
        return listeners

    async def _until_broken(self, pool: WorkerPool, tasks: list[asyncio.Task[None]]) -> None:
        stopped = asyncio.create_task(self._stop.wait())
        waited: list[asyncio.Future[Any]] = [stopped, pool.broken, *tasks]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        for task in tasks:
            if task.done():
                task.result()
        if pool.broken.done():
            raise pool.broken.result()

    async def _wind_down(self, parts: _Parts, tasks: list[asyncio.Task[None]]) -> None:
        """No new work, then time for what runs; a second signal ends the wait."""
        print("Stopping; a second signal stops at once.", file=sys.stderr, flush=True)
        parts.server.should_exit = True
        parts.dispatcher.stop()
        for listener in parts.listeners:
            listener.stop()
        patience = self._options.shutdown_timeout
        drained = asyncio.ensure_future(parts.executor.drained(patience))
        while not drained.done() and self._signals < 2:
            await asyncio.wait({drained}, timeout=_SIGNAL_POLL_S)
        if not drained.done() or not drained.result():
            _LOGGER.warning("Functions that still run are cut off")
            parts.server.force_exit = True
            patience = _CUT_OFF_GRACE_S
        await asyncio.wait(tasks, timeout=patience)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
