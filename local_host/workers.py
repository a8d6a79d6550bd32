"""The pool of worker processes: starts them, hands invocations out, replaces the dead."""

import asyncio
import contextlib
import logging
import os
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from local_host.channel import (
    Hello,
    Invocation,
    LoadFailure,
    Outcome,
    Ready,
    encode,
    read_message,
)
from local_host.errors import HostError, InvocationTimeoutError, WorkerLostError
from local_host.functions import Function

_LOGGER = logging.getLogger("local_host.workers")
_PACKAGE_PARENT = str(Path(__file__).resolve().parent.parent)
_MAX_FAILED_RESTARTS = 3
_STOP_GRACE_S = 2.0


class WorkerProcess:
    """One worker process and the invocations it has not answered yet."""

    def __init__(
        self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.process = process
        self._reader = reader
        self._writer = writer
        self.waiting: dict[str, asyncio.Future[Outcome]] = {}
        #: It takes nothing more: a call learns of the death before the process' keeper does.
        self.lost = False

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    async def load(self, hello: Hello) -> tuple[Function, ...]:
        """Have the worker load the app; its functions.

        Raises:
            HostError: The app cannot be loaded.
        """
        self._writer.write(encode(hello))
        try:
            answer = await read_message(self._reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            status = await self.process.wait()
            raise HostError(
                f"the worker process ended with status {status} while it loaded the app"
            ) from None
        if isinstance(answer, LoadFailure):
            raise HostError(
                f"the app in {hello.app_dir} cannot be loaded: {answer.message}\n\n{answer.stack}"
            )
        assert isinstance(answer, Ready)
        return answer.functions

    async def run(self, invocation: Invocation) -> Outcome:
        """Send the invocation and wait for its outcome; raises WorkerLostError."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.waiting[invocation.id] = future
        try:
            self._writer.write(encode(invocation))
            await self._writer.drain()
            return await future
        except ConnectionError:
            self.lost = True
            raise WorkerLostError(f"worker process {self.pid} ended") from None
        finally:
            self.waiting.pop(invocation.id, None)

    async def receive(self) -> None:
        """Give outcomes to those who wait, until the process is gone."""
        try:
            while True:
                outcome = await read_message(self._reader)
                future = self.waiting.get(outcome.id)
                if future is not None and not future.done():
                    future.set_result(outcome)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.lost = True
            for future in self.waiting.values():
                if not future.done():
                    future.set_exception(WorkerLostError(f"worker process {self.pid} ended"))

    def kill(self) -> None:
        """End the process at once; harmless when it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    async def stop(self) -> None:
        """Hang up, and end the process where it does not end by itself."""
        self._writer.close()
        try:
            await asyncio.wait_for(self.process.wait(), _STOP_GRACE_S)
        except TimeoutError:
            self.kill()
            await self.process.wait()


class WorkerPool:
    """Keeps ``count`` workers alive. Use it from one event loop."""

    def __init__(self, hello: Hello, count: int, environment: Mapping[str, str]) -> None:
        self._hello = hello
        self._count = count
        self._environment = dict(environment)
        self._workers: list[WorkerProcess] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._changed = asyncio.Condition()
        self._stopping = False
        self.functions: tuple[Function, ...] = ()
        self.broken: asyncio.Future[HostError] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """Start all workers and index the app; raises HostError for a broken app."""
        first, self.functions = await self._spawn()
        await self._add(first)
        self._keepers.append(asyncio.create_task(self._keep(first)))
        for _ in range(self._count - 1):
            self._keepers.append(asyncio.create_task(self._keep(None)))

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers that serve now."""
        return [worker.pid for worker in self._workers]

    @property
    def stopping(self) -> bool:
        """Whether the pool was told to end its workers: what they ran is lost on purpose."""
        return self._stopping

    async def run(self, invocation: Invocation, timeout: float | None = None) -> Outcome:
        """Run the invocation on the worker with the least to do.

        Raises:
            WorkerLostError: The process ended before it answered.
            InvocationTimeoutError: It took longer than ``timeout`` seconds; its process, whose
                thread cannot be stopped otherwise, was ended.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._alive()) or self._stopping)
        if not (alive := self._alive()):
            raise WorkerLostError("the host is stopping")
        worker = min(alive, key=lambda one: len(one.waiting))
        if timeout is None:
            return await worker.run(invocation)
        try:
            return await asyncio.wait_for(worker.run(invocation), timeout)
        except TimeoutError:
            _LOGGER.error(
                "Timeout value of %gs was exceeded by function '%s' (Id: %s); "
                "its worker process %d is replaced",
                timeout,
                invocation.function,
                invocation.id,
                worker.pid,
            )
            worker.kill()
            raise InvocationTimeoutError(f"no answer within {timeout:g} s") from None

    async def stop(self) -> None:
        """End all workers."""
        self._stopping = True
        async with self._changed:
            self._changed.notify_all()
        workers = list(self._workers)
        await asyncio.gather(*(worker.stop() for worker in workers))
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    def _alive(self) -> list[WorkerProcess]:
        return [worker for worker in self._workers if not worker.lost]

    async def _add(self, worker: WorkerProcess) -> None:
        async with self._changed:
            self._workers.append(worker)
            self._changed.notify_all()

    async def _keep(self, worker: WorkerProcess | None) -> None:
        """Serve with ``worker``, then with one replacement after the other."""
        failures = 0
        while not self._stopping:
            if worker is None:
                try:
                    worker, _ = await self._spawn()
                except HostError as error:
                    failures += 1
                    _LOGGER.error("A worker process could not be started: %s", error)
                    if failures >= _MAX_FAILED_RESTARTS:
                        if not self.broken.done():
                            self.broken.set_result(error)
                        return
                    await asyncio.sleep(failures)
                    continue
                failures = 0
                await self._add(worker)
            await worker.receive()
            self._workers.remove(worker)
            worker.kill()
            status = await worker.process.wait()
            if not self._stopping:
                _LOGGER.error(
                    "Worker process %d ended with status %d; a new one is started",
                    worker.pid,
                    status,
                )
            worker = None

    async def _spawn(self) -> tuple[WorkerProcess, tuple[Function, ...]]:
        ours, theirs = socket.socketpair()
        environment = self._environment | {"PYTHONUNBUFFERED": "1"}
        hello = self._hello
        if hello.app_dir != _PACKAGE_PARENT:
            known = [_PACKAGE_PARENT, *filter(None, [environment.get("PYTHONPATH")])]
            environment["PYTHONPATH"] = os.pathsep.join(known)
            hello = replace(hello, import_path_to_drop=_PACKAGE_PARENT)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "local_host.worker",
                str(theirs.fileno()),
                cwd=hello.app_dir,
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
            )
        reader, writer = await asyncio.open_connection(sock=ours)
        worker = WorkerProcess(process, reader, writer)
        try:
            return worker, await worker.load(hello)
        except BaseException:
            worker.kill()
            await worker.stop()
            raise
