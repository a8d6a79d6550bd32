"""Orchestrations: what Durable Functions promises of them."""

import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.local_host.running_host import RunningHost, wait_for

WEBHOOKS = "/runtime/webhooks/durabletask"


def client(host: RunningHost, call: str, **keywords: Any) -> Any:
    """Call the durable client inside the app; the result, or the error's code."""
    answer = host.http.post(f"/api/client/{call}", json=keywords).json()
    return answer.get("result", answer.get("error"))


def test_a_fan_out_fans_in(host: RunningHost) -> None:
    assert host.run_orchestration("fan_out", 40) == sum(2 * i for i in range(40))


def test_a_retry_policy_repeats_a_failing_activity(host: RunningHost, tmp_path: Path) -> None:
    request = {"file": str(tmp_path / "a"), "times": 3, "attempts": 5}
    assert host.run_orchestration("with_retry", request) == 3
    request = {"file": str(tmp_path / "b"), "times": 9, "attempts": 2}
    state = host.finished(host.start_orchestration("with_retry", request))
    assert state["runtimeStatus"] == "Failed"
    assert "attempt 2" in state["output"]
    assert len((tmp_path / "b").read_text().splitlines()) == 2
    host.wait_for_log("Executed 'Functions.with_retry' (Failed")


def test_an_activity_that_fails_without_a_text_has_failed(host: RunningHost) -> None:
    assert host.run_orchestration("catches", "wordless") == {"type": "RuntimeError", "message": ""}


def test_an_unknown_activity_or_orchestrator_fails_at_once(host: RunningHost) -> None:
    answer = host.run_orchestration("catches", "no_such_activity")
    assert answer["type"] == "ActivityNotFound"
    assert "no_such_activity" in answer["message"]
    state = host.finished(host.start_orchestration("no_such_orchestrator"))
    assert state["runtimeStatus"] == "Failed"
    assert "no_such_orchestrator" in state["output"]


def test_an_activity_is_found_by_the_name_of_its_trigger_in_any_case(host: RunningHost) -> None:
    assert host.run_orchestration("uses_renamed", "word") == "renamed word"


def test_no_more_activities_run_at_once_than_host_json_allows(
    host: RunningHost, tmp_path: Path
) -> None:
    most = host.run_orchestration("many_at_once", {"folder": str(tmp_path), "count": 24})
    assert 2 <= most <= 8


def test_a_timer_takes_its_time_and_no_thread(host: RunningHost) -> None:
    started = time.monotonic()
    threads = psutil.Process(host.process.pid).num_threads()
    ids = [host.start_orchestration("waits", 1.5) for _ in range(30)]
    assert psutil.Process(host.process.pid).num_threads() < threads + 15
    seconds = [host.finished(one)["output"] for one in ids]
    assert all(1.5 <= one < 5 for one in seconds)
    assert time.monotonic() - started < 15


def test_an_event_wins_against_a_timer_and_a_timer_against_no_event(host: RunningHost) -> None:
    decided = host.start_orchestration("decision", 3600)
    late = host.start_orchestration("decision", 0.3)
    wait_for(lambda: host.state(decided)["customStatus"] == {"phase": "waiting"})
    assert (
        host.http.post(
            f"{WEBHOOKS}/instances/{decided}/raiseEvent/decide", json={"lane": "clinical"}
        ).status_code
        == 202
    )
    assert host.finished(decided)["output"] == {"lane": "clinical"}
    assert host.finished(decided)["customStatus"] == {"phase": "done"}
    assert host.finished(late)["output"] == "too late"


def test_events_that_come_early_are_kept_in_order(host: RunningHost) -> None:
    instance = host.start_orchestration("two_events")
    for number in (1, 2):
        client(host, f"raise_orchestration_event/{instance}/tick", data=number)
    assert host.finished(instance)["output"] == [1, 2]


def test_an_event_for_nobody_is_refused(host: RunningHost) -> None:
    done = host.start_orchestration("fan_out", 1)
    host.finished(done)
    assert client(host, f"raise_orchestration_event/{done}/tick") == "FAILED_PRECONDITION"
    assert client(host, "raise_orchestration_event/nobody/tick") == "NOT_FOUND"
    path = "{}/instances/{}/raiseEvent/tick"
    assert host.http.post(path.format(WEBHOOKS, done), json=1).status_code == 410
    assert host.http.post(path.format(WEBHOOKS, "nobody"), json=1).status_code == 404
    assert host.http.post(path.format(WEBHOOKS, done), content="{").status_code == 400


@pytest.mark.parametrize("over_http", [True, False])
def test_a_suspended_instance_waits_until_it_is_resumed(host: RunningHost, over_http: bool) -> None:
    def control(verb: str) -> None:
        if over_http:
            path = f"{WEBHOOKS}/instances/{instance}/{verb}?reason=test"
            assert host.http.post(path).status_code == 202
        else:
            client(host, f"{verb}_orchestration/{instance}")

    instance = host.start_orchestration("decision", 3600)
    control("suspend")
    wait_for(lambda: host.state(instance)["runtimeStatus"] == "Suspended")
    client(host, f"raise_orchestration_event/{instance}/decide", data="kept")
    time.sleep(0.3)
    assert host.state(instance)["runtimeStatus"] == "Suspended"
    control("resume")
    assert host.finished(instance)["output"] == "kept"


@pytest.mark.parametrize("suspended", [False, True])
def test_a_terminated_instance_is_over(host: RunningHost, suspended: bool) -> None:
    instance = host.start_orchestration("decision", 3600)
    if suspended:
        client(host, f"suspend_orchestration/{instance}")
        wait_for(lambda: host.state(instance)["runtimeStatus"] == "Suspended")
    path = f"{WEBHOOKS}/instances/{instance}/terminate?reason=enough"
    assert host.http.post(path).status_code == 202
    state = host.finished(instance)
    assert state["runtimeStatus"] == "Terminated"
    assert state["output"] == "enough"
    assert host.http.post(path).status_code == 410


def test_an_id_can_be_used_again_when_its_instance_is_over(host: RunningHost) -> None:
    first = host.start_orchestration("decision", 3600, "again")
    second = host.http.post("/api/start/decision", params={"id": "again"}, json=1)
    assert second.status_code == 500  # the client raises: the instance still runs
    client(host, f"raise_orchestration_event/{first}/decide", data=1)
    assert host.finished(first)["output"] == 1
    host.start_orchestration("fan_out", 4, "again")
    assert host.finished("again")["output"] == 12


def test_a_restart_runs_again_with_the_same_input(host: RunningHost) -> None:
    instance = host.start_orchestration("fan_out", 3)
    host.finished(instance)
    path = f"{WEBHOOKS}/instances/{instance}/restart?restartWithNewInstanceId=true"
    response = host.http.post(path)
    assert response.status_code == 202
    copy = response.json()["id"]
    assert copy != instance
    assert host.finished(copy)["output"] == 6
    assert client(host, f"restart_orchestration/{instance}") == instance
    assert host.finished(instance)["output"] == 6


def test_a_rewind_takes_up_what_failed_and_what_still_ran(
    host: RunningHost, tmp_path: Path
) -> None:
    request = {"file": str(tmp_path / "needed"), "log": str(tmp_path / "log")}
    instance = host.start_orchestration("rewindable", request)
    assert host.finished(instance)["runtimeStatus"] == "Failed"
    (tmp_path / "needed").touch()
    assert host.http.post(f"{WEBHOOKS}/instances/{instance}/rewind?reason=x").status_code == 202
    wait_for(lambda: host.state(instance)["runtimeStatus"] == "Completed")
    assert host.state(instance)["output"] is True
    assert client(host, f"rewind_orchestration/{instance}") == "FAILED_PRECONDITION"


def test_a_purge_forgets_instances_that_are_over(host: RunningHost) -> None:
    done = host.start_orchestration("fan_out", 1)
    running = host.start_orchestration("decision", 3600)
    host.finished(done)
    path = f"{WEBHOOKS}/instances"
    assert host.http.delete(f"{path}/{running}").status_code == 404
    assert host.http.delete(f"{path}/{done}").json() == {"instancesDeleted": 1}
    assert host.http.get(f"{path}/{done}").status_code == 404
    terminated = host.start_orchestration("decision", 3600)
    client(host, f"terminate_orchestration/{terminated}")
    host.finished(terminated)
    query = {"runtimeStatus": "Terminated", "createdTimeFrom": "2020-01-01T00:00:00Z"}
    assert host.http.delete(path, params=query).json()["instancesDeleted"] >= 1
    assert host.http.get(f"{path}/{terminated}").status_code == 404
    client(host, f"terminate_orchestration/{running}")


def test_queries_filter_and_page(host: RunningHost) -> None:
    ids = [host.start_orchestration("fan_out", 1, f"query-{n}") for n in range(5)]
    for one in ids:
        host.finished(one)
    path = f"{WEBHOOKS}/instances"
    query = {"instanceIdPrefix": "query-", "runtimeStatus": "Completed", "top": "2"}
    seen: list[str] = []
    token: str | None = None
    while True:
        headers = {"x-ms-continuation-token": token} if token else {}
        response = host.http.get(path, params=query, headers=headers)
        page = response.json()
        assert len(page) <= 2
        seen += [entry["instanceId"] for entry in page]
        token = response.headers.get("x-ms-continuation-token")
        if not token:
            break
    assert seen == ids
    assert host.http.get(path, params={"runtimeStatus": "Wrong"}).status_code == 400
    assert host.http.get(path, params={"createdTimeFrom": "soon"}).status_code == 400


def test_history_tells_what_happened_and_when(host: RunningHost) -> None:
    instance = host.start_orchestration("fan_out", 2)
    host.finished(instance)
    events = host.state(instance, showHistory="true", showHistoryOutput="true")["historyEvents"]
    kinds = [event["EventType"] for event in events]
    assert kinds == ["ExecutionStarted", "TaskCompleted", "TaskCompleted", "ExecutionCompleted"]
    assert sorted(event["Result"] for event in events[1:3]) == [0, 2]
    assert all(event["Timestamp"] > "2020" for event in events)


def test_a_status_query_redirects_while_running_and_can_answer_500(host: RunningHost) -> None:
    started = host.http.post("/api/start/decision", json=3600)
    links = started.json()
    assert started.headers["location"] == links["statusQueryGetUri"]
    running = host.http.get(links["statusQueryGetUri"])
    assert running.status_code == 202
    assert running.headers["location"] == links["statusQueryGetUri"]
    assert host.http.post(links["terminatePostUri"].replace("{text}", "x")).status_code == 202
    host.finished(links["id"])
    failed = host.start_orchestration("no_such")
    host.finished(failed)
    path = f"{WEBHOOKS}/instances/{failed}"
    assert host.http.get(path).status_code == 200
    query = {"returnInternalServerErrorOnFailure": "true"}
    assert host.http.get(path, params=query).status_code == 500


def test_an_orchestration_starts_over_http(host: RunningHost) -> None:
    response = host.http.post(f"{WEBHOOKS}/orchestrators/fan_out/started-here", json=3)
    assert response.status_code == 202
    assert host.finished("started-here")["output"] == 6


def test_a_sub_orchestration_knows_its_parent(host: RunningHost) -> None:
    instance = host.start_orchestration("parent", {"id": "the-child"})
    assert host.finished(instance)["output"] == {"id": "the-child", "parent": instance}


def test_a_waiting_sub_orchestration_takes_no_thread(host: RunningHost) -> None:
    threads = psutil.Process(host.process.pid).num_threads()
    ids = [host.start_orchestration("parent", {"seconds": 1.5}) for _ in range(30)]
    assert psutil.Process(host.process.pid).num_threads() < threads + 15
    assert all(host.finished(one)["output"]["parent"] == one for one in ids)


def test_a_sub_orchestration_that_continues_as_new_keeps_its_parent(host: RunningHost) -> None:
    instance = host.start_orchestration("parent", {"renew": 2, "id": "renewed-child"})
    assert host.finished(instance)["output"] == {"id": "renewed-child", "parent": instance}


def test_a_sub_orchestration_fails_with_its_own_error(host: RunningHost) -> None:
    answer = host.run_orchestration("parent", {"fail": True})
    assert answer["type"].endswith("KeyError")
    assert "the child's own error" in answer["message"]


def test_a_terminated_sub_orchestration_fails_its_parent(host: RunningHost) -> None:
    instance = host.start_orchestration("parent", {"seconds": 3600, "id": "ended-child"})
    wait_for(lambda: host.http.get(f"{WEBHOOKS}/instances/ended-child").status_code == 202)
    client(host, "terminate_orchestration/ended-child")
    assert "ended-child" in host.finished(instance)["output"]["message"]


def test_a_continued_execution_gets_events_but_nothing_of_the_earlier_one(
    host: RunningHost,
) -> None:
    instance = host.start_orchestration("counts_down", {"left": 2, "seen": []})
    for _ in range(2):
        client(host, f"raise_orchestration_event/{instance}/go", data=None)
    state = host.finished(instance)
    assert state["output"] == {"seen": ["event", "event"], "at": "end"}
    assert state["runtimeStatus"] == "Completed"


def test_a_continued_instance_runs_and_is_not_pending(host: RunningHost) -> None:
    instance = host.start_orchestration("counts_down", {"left": 1, "seen": []})
    wait_for(lambda: host.state(instance)["runtimeStatus"] == "Running")
    client(host, f"raise_orchestration_event/{instance}/go", data=None)
    seen = set()
    while (status := host.state(instance)["runtimeStatus"]) != "Completed":
        seen.add(status)
    assert seen == {"Running"}
    history = host.state(instance, showHistory="true")["historyEvents"]
    assert [event["EventType"] for event in history].count("ExecutionStarted") == 1


def test_call_http_polls_until_the_operation_is_done(host: RunningHost, tmp_path: Path) -> None:
    uri = f"{host.base_url}/api/operation?times=3&file={tmp_path / 'polls'}"
    answer = host.run_orchestration("http_caller", {"uri": uri})
    assert answer == {"status": 200, "content": "done at last"}
    assert len((tmp_path / "polls").read_text().splitlines()) == 3


def test_a_scheduled_start_waits(host: RunningHost) -> None:
    instance = host.http.post("/api/later/fan_out?seconds=1").json()["id"]
    assert host.state(instance)["runtimeStatus"] == "Pending"
    time.sleep(0.4)
    assert host.state(instance)["runtimeStatus"] == "Pending"
    assert host.finished(instance)["runtimeStatus"] == "Completed"


def test_a_wait_lasts_as_long_as_its_caller_says(host: RunningHost) -> None:
    instance = host.start_orchestration("decision", 3600)
    assert host.http.get(f"/api/wait/{instance}?seconds=0.3").text == "timeout"
    client(host, f"raise_orchestration_event/{instance}/decide", data=1)
    assert host.http.get(f"/api/wait/{instance}?seconds=10").text == "COMPLETED"


def test_a_sync_function_gets_a_sync_client(host: RunningHost) -> None:
    instance = host.start_orchestration("fan_out", 1)
    host.finished(instance)
    assert host.http.get(f"/api/sync-client/{instance}").text == "COMPLETED"
    assert host.http.get("/api/sync-client/nobody").text == "none"
