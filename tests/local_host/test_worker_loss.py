"""A worker process that dies takes nothing with it."""

import asyncio
import concurrent.futures
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_host.channel import Hello, HttpCall, Invocation, Outcome, Payload, Value
from local_host.errors import WorkerLostError
from local_host.workers import WorkerPool
from tests.azurite import Azurite
from tests.local_host.running_host import RunningHost, running_host, wait_for


@pytest.fixture(scope="module")
def host(azurite: Azurite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    """A host of its own: the tests here end its workers. Its function time is limited."""
    with running_host(
        tmp_path_factory.mktemp("losses"),
        AzureWebJobsStorage=azurite.connection_string,
        Second=azurite.connection_string,
        WORK_QUEUE="losses",
        FUNCTIONS_WORKER_PROCESS_COUNT="2",
        AzureFunctionsJobHost__functionTimeout="00:00:04",
    ) as running:
        yield running


def pid_in(path: Path) -> int:
    wait_for(lambda: path.exists() and path.read_text("utf-8").strip().isdigit())
    return int(path.read_text("utf-8").strip())


def two_workers(host: RunningHost) -> None:
    wait_for(lambda: len(host.worker_pids()) == 2, 20)


def test_an_activity_on_a_killed_worker_is_handed_out_again(
    host: RunningHost, tmp_path: Path
) -> None:
    log = tmp_path / "nap"
    instance = host.start_orchestration("napping", {"file": str(log), "seconds": 1})
    killed = pid_in(log)
    os.kill(killed, signal.SIGKILL)
    output = host.finished(instance)["output"]
    assert isinstance(output, int)
    assert output != killed
    two_workers(host)
    assert killed not in host.worker_pids()
    assert f"Worker process {killed} ended with status -9" in host.log


def test_all_work_of_a_killed_worker_is_handed_out_again(host: RunningHost, tmp_path: Path) -> None:
    two_workers(host)
    request = {"folder": str(tmp_path), "count": 40}
    instance = host.start_orchestration("many_at_once", request)
    wait_for(lambda: any(tmp_path.iterdir()))
    os.kill(host.worker_pids()[0], signal.SIGKILL)
    assert host.finished(instance)["runtimeStatus"] == "Completed"


def test_an_orchestrator_on_a_killed_worker_is_replayed(host: RunningHost, tmp_path: Path) -> None:
    two_workers(host)
    request = {"file": str(tmp_path / "mark")}
    instance = host.start_orchestration("crashing_orchestrator", request)
    assert host.finished(instance)["output"] == "survived"


def test_an_activity_that_ends_every_worker_fails_in_the_end(
    host: RunningHost, tmp_path: Path
) -> None:
    def start(name: str, times: int) -> str:
        """Start it without a worker: the activity may end the one that would answer."""
        path = "/runtime/webhooks/durabletask/orchestrators/crashing"
        response = host.http.post(path, json={"file": str(tmp_path / name), "times": times})
        return str(response.json()["id"])

    two_workers(host)
    assert host.finished(start("few", 2), 40)["output"] == 3
    state = host.finished(start("many", 99), 40)
    assert state["runtimeStatus"] == "Failed"
    assert "worker process" in state["output"]
    assert len((tmp_path / "many").read_text("utf-8").splitlines()) == 5


def test_a_safe_request_is_repeated_and_another_answers_502(
    host: RunningHost, tmp_path: Path
) -> None:
    two_workers(host)
    response = host.http.get("/api/crash-once", params={"mark": str(tmp_path / "get")})
    assert (response.status_code, response.text) == (200, "survived")
    two_workers(host)
    response = host.http.post("/api/crash-once", params={"mark": str(tmp_path / "post")})
    assert response.status_code == 502
    assert "'crash_once' ended before it answered" in response.text


def test_a_dead_worker_is_asked_once_however_late_its_end_is_noticed(tmp_path: Path) -> None:
    app = "import azure.functions as func\napp = func.FunctionApp()\n"
    door = "@app.route(route='pid')\ndef pid(req: func.HttpRequest) -> str:\n    return 'served'\n"
    (tmp_path / "function_app.py").write_text(app + door, "utf-8")
    hello = Hello(str(tmp_path), "function_app.py", "WARNING", 1, "", str(tmp_path), None)
    request = Value("http", HttpCall("GET", "http://localhost/api/pid", {}, {}, {}, Payload()))

    def call(name: str) -> Invocation:
        return Invocation(id=name, function="pid", trigger=request)

    async def outcomes() -> tuple[Outcome, Outcome]:
        pool = WorkerPool(hello, 1, os.environ)
        await pool.start()
        try:
            before = await pool.run(call("before"))
            os.kill(pool.pids[0], signal.SIGKILL)
            # The event loop stands still until it is dead, and has not noticed it then.
            os.waitid(os.P_PID, pool.pids[0], os.WEXITED | os.WNOWAIT)
            with pytest.raises(WorkerLostError):
                await pool.run(call("lost"))
            return before, await pool.run(call("after"))
        finally:
            await pool.stop()

    # In a thread, for this process may have a loop of its own: the browser tests' leave one.
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        before, after = thread.submit(asyncio.run, outcomes()).result()
    assert before.failure is None
    assert after.failure is None


def test_a_function_that_takes_too_long_is_ended_with_its_worker(
    host: RunningHost, tmp_path: Path
) -> None:
    two_workers(host)
    query = {"seconds": "60", "mark": str(tmp_path / "slow")}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(host.http.get, "/api/slow", params=query)
        pid = pid_in(tmp_path / "slow")
        assert answer.result().status_code == 500
    host.wait_for_log("Timeout value of 4s was exceeded by function 'slow'")
    wait_for(lambda: pid not in host.worker_pids())
    two_workers(host)
