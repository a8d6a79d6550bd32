"""HTTP functions, their routes, and the admin API."""

import asyncio
import concurrent.futures
import hashlib
import os
import re
import socket
import uuid

import pytest

from local_host.host import bind
from tests.local_host.running_host import RunningHost, wait_for


def test_a_function_sees_method_url_route_query_headers_body_and_context(host: RunningHost) -> None:
    response = host.http.post(
        "/api/echo/w%C3%B6rd%20two/7?a=1&b=",
        content="body",
        headers={"X-Probe": "seen", "traceparent": "00-aa-bb-01"},
    )
    assert response.status_code == 200
    seen = response.json()
    assert seen["method"] == "POST"
    assert seen["url"] == str(response.request.url)
    assert seen["route"] == {"word": "wörd two", "count": "7"}
    assert seen["query"] == {"a": "1", "b": ""}
    assert seen["header"] == "seen"
    assert seen["body"] == "body"
    assert seen["function"] == "echo"
    assert seen["invocation"] == seen["thread_invocation"]
    assert uuid.UUID(seen["invocation"])
    assert seen["trace_parent"] == "00-aa-bb-01"
    assert seen["retry"] is True
    assert seen["setting"] == "from the environment"


def test_a_literal_route_wins_over_a_parameter(host: RunningHost) -> None:
    assert host.http.get("/api/echo/fixed").text == "fixed"
    assert host.http.get("/api/ECHO/Fixed").text == "fixed"
    assert host.http.get("/api/echo/other").json()["route"] == {"word": "other"}


@pytest.mark.parametrize(
    "path", ["/api/echo/word/notanumber", "/api/only/notaguid", "/api/echo", "/echo/word", "/x"]
)
def test_a_path_that_no_route_takes_is_not_found(host: RunningHost, path: str) -> None:
    assert host.http.get(path).status_code == 404


def test_a_method_that_the_function_does_not_list_is_not_found(host: RunningHost) -> None:
    assert host.http.delete("/api/echo/word").status_code == 404


def test_a_guid_constraint_admits_guids(host: RunningHost) -> None:
    value = str(uuid.uuid4())
    assert host.http.get(f"/api/only/{value}").text == value


def test_a_catch_all_takes_slashes_and_nothing(host: RunningHost) -> None:
    assert host.http.get("/api/files/a/b%20c/d").json() == {"path": "a/b c/d"}
    assert host.http.get("/api/files").json() == {}


def test_uploads_of_any_size_arrive_whole(host: RunningHost) -> None:
    for size in (0, 1000, (1 << 20) + 1, 24 << 20):
        body = os.urandom(1 << 10) * (size >> 10) + b"x" * (size & 1023)
        answer = host.http.post("/api/digest", content=body).json()
        assert answer == {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}


def test_large_responses_arrive_whole_with_their_length_and_cookies(host: RunningHost) -> None:
    response = host.http.get("/api/large?kib=5000")
    assert response.headers["content-length"] == str(5000 * 1024)
    assert response.content == b"0123456789abcdef" * (5000 * 64)
    assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert response.headers["content-type"] == "application/octet-stream"


def test_large_bodies_leave_no_file_behind(host: RunningHost) -> None:
    host.http.post("/api/digest", content=b"x" * (3 << 20))
    assert len(host.http.get("/api/large?kib=3000").content) == 3000 << 10
    assert len(list(host.folder.glob("functions-spool-*"))) == 1
    wait_for(lambda: not list(host.folder.glob("functions-spool-*/*")))


def test_a_function_that_returns_nothing_answers_204(host: RunningHost) -> None:
    assert host.http.get("/api/nothing").status_code == 204


def test_a_function_that_fails_answers_500_and_the_log_says_why(host: RunningHost) -> None:
    response = host.http.get("/api/broken")
    assert response.status_code == 500
    assert response.content == b""
    host.wait_for_log("LookupError: a broken function")
    assert re.search(
        r"Executed 'Functions\.broken' \(Failed, Id=[0-9a-f-]{36}, Duration=\d+ms\)", host.log
    )


def test_each_invocation_is_one_line_in_the_log(host: RunningHost) -> None:
    invocation = host.http.get("/api/echo/logged").json()["invocation"]
    host.wait_for_log(invocation)
    lines = [line for line in host.log.splitlines() if invocation in line]
    assert len(lines) == 1
    assert re.search(
        rf"Executed 'Functions\.echo' \(Succeeded, Id={invocation}, Duration=\d+ms\)", lines[0]
    )


def test_several_processes_share_the_work(host: RunningHost) -> None:
    def all_work() -> bool:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            pids = set(pool.map(lambda _: host.http.get("/api/slow?seconds=0.3").text, range(8)))
        return pids == {str(pid) for pid in host.worker_pids()}

    # The second process may still be loading the app.
    wait_for(all_work)


def test_threads_of_one_process_run_at_the_same_time(host: RunningHost) -> None:
    # Of three calls two are in one of the two processes, and meet; the third may be alone.
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: host.http.get("/api/meet").status_code, range(3)))
    assert answers.count(200) >= 2


def test_answers_do_not_wait_for_acknowledgements() -> None:
    """TCP would hold small packets back (RFC 896) and the other side its acknowledgement of them
    (RFC 1122 section 4.2.3.2): together 40 ms an answer.
    """

    async def connect() -> None:
        accepting: asyncio.Future[asyncio.StreamWriter]
        accepting = asyncio.get_running_loop().create_future()

        def on_connection(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepting.set_result(writer)

        listener = bind("127.0.0.1", 0)
        async with await asyncio.start_server(on_connection, sock=listener):
            with socket.create_connection(listener.getsockname()):
                writer = await accepting
                one = writer.get_extra_info("socket")
                assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                writer.close()
                await writer.wait_closed()

    asyncio.run(connect())


def test_the_start_lists_functions_with_their_urls(host: RunningHost) -> None:
    assert f"\techo: [GET,POST] {host.base_url}/api/echo/{{word}}/{{count:int?}}\n" in host.log
    assert "\ttick: timerTrigger\n" in host.log
    assert "\tfan_out: orchestrationTrigger\n" in host.log


def test_the_admin_api_tells_state_and_functions(host: RunningHost) -> None:
    status = host.http.get("/admin/host/status").json()
    assert status["state"] == "Running"
    assert len(status["workerProcessIds"]) == 2
    names = {entry["name"] for entry in host.http.get("/admin/functions").json()}
    assert {"echo", "tick", "fan_out", "worker"} <= names
    entry = host.http.get("/admin/functions/echo").json()
    assert entry["invoke_url_template"] == f"{host.base_url}/api/echo/{{word}}/{{count:int?}}"
    assert host.http.get("/admin/functions/none").status_code == 404
