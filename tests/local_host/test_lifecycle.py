"""How the host starts, what it refuses, and how it stops."""

import concurrent.futures
import contextlib
import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.azurite import Azurite
from tests.local_host.running_host import RunningHost, launch, running_host, wait_for

_SIMPLE = """
import azure.functions as func
app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)

@app.route(route="hello/{name}")
def hello(req: func.HttpRequest) -> str:
    return "hello " + req.route_params["name"]

@app.route(route="open", auth_level=func.AuthLevel.ANONYMOUS)
def open_door(req: func.HttpRequest) -> str:
    return "open"

@app.route(route="master", auth_level=func.AuthLevel.ADMIN)
def master(req: func.HttpRequest) -> str:
    return "master"

@app.route(route="slow")
def slow(req: func.HttpRequest) -> str:
    import pathlib, time
    pathlib.Path(req.params["mark"]).touch()
    time.sleep(float(req.params["seconds"]))
    return "slept"
"""


def make_app(
    folder: Path, source: str = _SIMPLE, host: object = None, local: object = None
) -> Path:
    app = folder / "app"
    app.mkdir()
    (app / "function_app.py").write_text(source, "utf-8")
    (app / "host.json").write_text(json.dumps(host or {"version": "2.0"}), "utf-8")
    if local is not None:
        (app / "local.settings.json").write_text(json.dumps(local), "utf-8")
    return app


def refusal(folder: Path, *arguments: str, app: Path, **settings: str) -> str:
    """What a host says that must end with status 1."""
    host = launch(folder, *arguments, app=app, **settings)
    try:
        assert host.exit_status() == 1, host.log
        return host.log
    finally:
        host.stop()


def test_an_app_without_storage_triggers_starts_without_storage(tmp_path: Path) -> None:
    with running_host(tmp_path, app=make_app(tmp_path)) as host:
        assert host.http.get("/api/hello/you").text == "hello you"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import not_there_at_all", "ModuleNotFoundError"),
        ("def broken(:\n", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("x = 1", "must define one app"),
        (_SIMPLE.replace("def hello(req:", "def hello(other:"), "no such parameter"),
        (_SIMPLE + "\n@app.route(route='b')\ndef two(req, extra):\n    pass\n", "no binding"),
        (_SIMPLE.replace("hello/{name}", "hello/{name:nosuch}"), "not a route constraint"),
        (
            _SIMPLE + "\n@app.timer_trigger('t', schedule='0 0 25 * * *')\ndef t(t):\n    pass\n",
            "the schedule of function t is wrong",
        ),
        (
            _SIMPLE + "\n@app.timer_trigger('t', schedule='%NO_SUCH%')\ndef t(t):\n    pass\n",
            "there is no setting NO_SUCH",
        ),
        ("import os; os._exit(7)", "ended with status 7"),
    ],
)
def test_a_broken_app_ends_the_start_with_its_reason(
    tmp_path: Path, source: str, said: str
) -> None:
    log = refusal(tmp_path, app=make_app(tmp_path, source))
    assert "error: " in log
    assert said in log
    assert "Listening" not in log


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"version": "2.0",}', "host.json is not valid JSON: line 1"),
        ('{"version": "1.0"}', 'it must be "2.0"'),
        (
            '{"version": "2.0", "extensions": {"queues": {"batchSize": 99}}}',
            "extensions.queues.batchSize is 99; it must be between 1 and 32",
        ),
    ],
)
def test_a_wrong_host_json_ends_the_start_with_its_place(
    tmp_path: Path, content: str, said: str
) -> None:
    app = make_app(tmp_path)
    (app / "host.json").write_text(content, "utf-8")
    assert said in refusal(tmp_path, app=app)


def test_a_folder_without_an_app_is_refused(tmp_path: Path) -> None:
    assert "holds no host.json" in refusal(tmp_path, app=tmp_path)


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        log = refusal(tmp_path, "--port", str(port), app=app)
    assert f"port {port} is taken" in log
    assert "--port" in log


_QUEUE_APP = """
import azure.functions as func
app = func.FunctionApp()

@app.queue_trigger(arg_name="message", queue_name="work", connection="Account")
def worker(message: func.QueueMessage) -> None:
    pass
"""


def test_an_unreachable_storage_account_is_refused(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        key = "c2VjcmV0LWtleQ=="
        account = (
            f"DefaultEndpointsProtocol=http;AccountName=a;AccountKey={key};"
            f"QueueEndpoint=http://127.0.0.1:{port}/a;"
        )
        log = refusal(tmp_path, app=make_app(tmp_path, _QUEUE_APP), Account=account)
    assert "the storage account of the setting Account does not answer" in log
    assert f"http://127.0.0.1:{port}" in log
    assert key not in log


def test_a_refused_or_missing_or_malformed_account_is_named(
    tmp_path: Path, azurite: Azurite
) -> None:
    app = make_app(tmp_path, _QUEUE_APP)
    assert "there is no setting Account" in refusal(tmp_path, app=app)
    malformed = refusal(tmp_path, app=app, Account="nonsense")
    assert "the setting Account is not a storage connection string" in malformed
    wrong = azurite.connection_string.replace("Eby8vdM02x", "AAAAAAAAAA")
    log = refusal(tmp_path, app=app, Account=wrong)
    assert "refuses its credential" in log


def test_a_function_that_this_host_does_not_serve_is_named_and_left_out(tmp_path: Path) -> None:
    source = _SIMPLE + (
        "\n@app.event_hub_message_trigger(arg_name='e', event_hub_name='h', connection='c')\n"
        "def hub(e: func.EventHubEvent) -> None:\n    pass\n"
    )
    with running_host(tmp_path, app=make_app(tmp_path, source)) as host:
        assert "The 'hub' function is in error: its trigger eventHubTrigger" in host.log
        assert host.http.get("/api/hello/you").status_code == 200


def test_disabled_functions_and_those_not_asked_for_are_left_out(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    disabled = {"AzureWebJobs.slow.Disabled": "true"}
    arguments = ("--functions", "hello", "slow")
    with running_host(tmp_path, *arguments, app=app, **disabled) as host:
        assert host.http.get("/api/hello/you").status_code == 200
        assert host.http.get("/api/slow").status_code == 404
        assert host.http.get("/api/open").status_code == 404
        assert "Function 'slow' is disabled" in host.log
    assert "names nosuch" in refusal(tmp_path, "--functions", "nosuch", app=app)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_functions_finish_and_leaves_no_process(
    tmp_path: Path, number: signal.Signals
) -> None:
    mark = tmp_path / "mark"
    with running_host(tmp_path, app=make_app(tmp_path)) as host:
        children = psutil.Process(host.process.pid).children(recursive=True)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            query = {"seconds": "1", "mark": str(mark)}
            answer = pool.submit(host.http.get, "/api/slow", params=query)
            wait_for(mark.exists)
            host.process.send_signal(number)
            assert answer.result().text == "slept"
        assert host.exit_status() == 0, host.log
        assert children
        wait_for(lambda: not any(child.is_running() for child in children))


def test_a_stop_does_not_wait_for_ever(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with (
        running_host(tmp_path, "--shutdown-timeout", "0.5", app=make_app(tmp_path)) as host,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        query = {"seconds": "60", "mark": str(mark)}
        answer = pool.submit(host.http.get, "/api/slow", params=query)
        wait_for(mark.exists)
        started = time.monotonic()
        host.process.send_signal(signal.SIGTERM)
        assert host.exit_status() == 0, host.log
        assert time.monotonic() - started < 10
        assert "'Functions.slow' (Cut off, the host stops, " in host.log
        assert "handed out again" not in host.log
        assert "Traceback" not in host.log
        with contextlib.suppress(httpx.TransportError):  # cut off before an answer
            assert answer.result().status_code >= 500


def test_workers_end_when_the_host_is_killed(tmp_path: Path) -> None:
    with running_host(tmp_path, app=make_app(tmp_path)) as host:
        children = psutil.Process(host.process.pid).children(recursive=True)
        host.process.kill()
        assert children
        wait_for(lambda: not any(child.is_running() for child in children))


def test_local_settings_reach_the_app_and_the_environment_wins(tmp_path: Path) -> None:
    source = (
        "import os, azure.functions as func\napp = func.FunctionApp()\n"
        "@app.route(route='{name}')\ndef show(req: func.HttpRequest) -> str:\n"
        "    return os.environ.get(req.route_params['name'], '-')\n"
    )
    local = {
        "IsEncrypted": False,
        "Values": {"FROM_FILE": "file", "FROM_BOTH": "file", "FLAG": True},
        "Host": {"CORS": "https://page.example"},
    }
    host_json = {"version": "2.0", "extensions": {"http": {"routePrefix": ""}}}
    app = make_app(tmp_path, source, host_json, local)
    with running_host(tmp_path, app=app, FROM_BOTH="environment") as host:
        assert host.http.get("/FROM_FILE").text == "file"
        assert host.http.get("/FROM_BOTH").text == "environment"
        assert host.http.get("/FLAG").text == "true"
        headers = {"Origin": "https://page.example"}
        answer = host.http.get("/FLAG", headers=headers)
        assert answer.headers["access-control-allow-origin"] == "https://page.example"


# Keys


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    folder = tmp_path_factory.mktemp("guarded")
    secrets = str(folder / "secrets")
    app = make_app(folder)
    with running_host(folder, "--enableAuth", "--secrets", secrets, app=app) as host:
        yield host


def test_keys_are_asked_for_with_enable_auth(guarded: RunningHost) -> None:
    path = guarded.folder / "secrets" / "host.json"
    assert path.stat().st_mode & 0o777 == 0o600
    keys = json.loads(path.read_text("utf-8"))
    master, function = keys["masterKey"]["value"], keys["functionKeys"][0]["value"]
    (path.parent / "hello.json").write_text('{"keys": [{"name": "a", "value": "own"}]}', "utf-8")
    http = guarded.http

    def status(path: str, key: str | None, header: bool = False) -> int:
        if key is None:
            return http.get(path).status_code
        if header:
            return http.get(path, headers={"x-functions-key": key}).status_code
        return http.get(path, params={"code": key}).status_code

    assert status("/api/open", None) == 200
    assert [status("/api/hello/x", key) for key in (None, "wrong")] == [401, 401]
    assert [status("/api/hello/x", key) for key in (function, master, "own")] == [200] * 3
    assert status("/api/hello/x", function, header=True) == 200
    assert [status("/api/master", key) for key in (function, master)] == [401, 200]
    assert [status("/admin/host/status", key) for key in (None, function, master)] == [
        401,
        401,
        200,
    ]
    extension = next(k["value"] for k in keys["systemKeys"] if k["name"].startswith("durable"))
    durable = "/runtime/webhooks/durabletask/instances"
    assert [status(durable, key) for key in (None, function, extension)] == [401, 401, 200]
    for key in (master, function, extension):
        assert key not in guarded.log


def test_links_carry_the_key_that_opens_them(azurite: Azurite, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "AzureWebJobsStorage": azurite.connection_string,
        "WORK_QUEUE": "unused",
        "Second": azurite.connection_string,
    }
    secrets = tmp_path / "secrets"
    with running_host(tmp_path, "--enableAuth", "--secrets", str(secrets), **settings) as host:
        keys = json.loads((secrets / "host.json").read_text("utf-8"))
        query = {"code": keys["functionKeys"][0]["value"]}
        started = host.http.post("/api/start/fan_out", params=query, json=2)
        assert started.status_code == 202
        status = started.json()["statusQueryGetUri"]
        wait_for(lambda: host.http.get(status).status_code == 200)
        assert host.http.get(status.partition("?")[0]).status_code == 401


# Timers


def ticks(host: RunningHost) -> list[dict[str, object]]:
    path = host.folder / "ticks"
    return (
        [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        if (path.exists())
        else []
    )


def test_a_timer_runs_at_start_and_at_its_times(azurite: Azurite, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "AzureWebJobsStorage": azurite.connection_string,
        "WORK_QUEUE": "unused",
        "Second": azurite.connection_string,
    }
    with running_host(tmp_path, SAMPLE_SCHEDULE="*/1 * * * * *", **settings) as host:
        wait_for(lambda: len(ticks(host)) >= 4)
        times = [float(str(tick["at"])) for tick in ticks(host)][1:]
        assert all(abs(time - round(time)) < 0.5 for time in times)
        assert not any(tick["past_due"] for tick in ticks(host))


def test_a_timer_runs_by_hand(azurite: Azurite, host: RunningHost) -> None:
    wait_for(lambda: len(ticks(host)) == 1)  # runOnStartup
    assert host.http.post("/admin/functions/tick", json={}).status_code == 202
    wait_for(lambda: len(ticks(host)) == 2)


def test_a_timer_with_a_retry_policy_is_repeated(tmp_path: Path) -> None:
    source = (
        "import os, azure.functions as func\napp = func.FunctionApp()\n"
        "@app.timer_trigger('t', schedule='0 0 0 1 1 *', run_on_startup=True)\n"
        "@app.retry(strategy='fixed_delay', max_retry_count='3', delay_interval='00:00:00.05')\n"
        "def again(t: func.TimerRequest, context: func.Context) -> None:\n"
        "    state = context.retry_context\n"
        "    with open(os.environ['SAMPLE_LOG'], 'a') as file:\n"
        "        file.write(f'{state.retry_count} of {state.max_retry_count}\\n')\n"
        "    if state.retry_count < 2:\n"
        "        raise ValueError('not yet')\n"
    )
    with running_host(tmp_path, app=make_app(tmp_path, source)) as host:
        host.wait_for_log("Executed 'Functions.again' (Succeeded")
        lines = (tmp_path / "log").read_text("utf-8").splitlines()
    assert lines == ["0 of 3", "1 of 3", "2 of 3"]
