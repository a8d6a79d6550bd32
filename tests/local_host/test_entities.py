"""Entities: signals, calls, locks, deletion, clean-up."""

import time
from typing import Any

from tests.local_host.running_host import RunningHost, wait_for

ENTITIES = "/runtime/webhooks/durabletask/entities"


def entity(host: RunningHost, operation: str, key: str = "", **body: Any) -> Any:
    """Do something with a counter through the durable client."""
    return host.http.post(f"/api/entities/{operation}/{key}", json=body).json()


def value_becomes(host: RunningHost, key: str, value: int | None) -> None:
    wait_for(lambda: entity(host, "read", key) == value, 10, lambda: host.log[-3000:])


def test_signals_change_state_in_order(host: RunningHost) -> None:
    for amount in (1, 2, 3):
        entity(host, "add", "signals", input=amount)
    value_becomes(host, "signals", 6)


def test_an_orchestration_signals_and_calls(host: RunningHost) -> None:
    request = {"key": "called", "signal": 5, "operation": "get"}
    assert host.run_orchestration("asks_entity", request) == 5


def test_an_entity_that_refuses_fails_the_call_and_keeps_its_state(host: RunningHost) -> None:
    entity(host, "add", "refuses", input=4)
    answer = host.run_orchestration("asks_entity", {"key": "refuses", "operation": "fail"})
    assert "the entity refuses" in answer
    assert entity(host, "read", "refuses") == 4


def test_an_unknown_entity_fails_the_call(host: RunningHost) -> None:
    response = host.http.post(f"{ENTITIES}/nothing/key?op=add", json=1)
    assert response.status_code == 202
    assert host.http.get(f"{ENTITIES}/nothing/key").status_code == 404


def test_an_entity_signals_another_and_starts_an_orchestration(host: RunningHost) -> None:
    entity(host, "pass_on", "first", input="second")
    value_becomes(host, "second", 10)
    entity(host, "start", "first", input="started-by-entity")
    path = "/runtime/webhooks/durabletask/instances/started-by-entity"
    wait_for(lambda: host.http.get(path).status_code != 404)
    assert host.finished("started-by-entity")["output"] == 6


def test_a_delayed_signal_waits(host: RunningHost) -> None:
    entity(host, "add", "delayed", input=1, seconds=0.8)
    request = {"key": "delayed", "seconds": 0.8}
    assert host.run_orchestration("delayed_signal", request) is True
    assert entity(host, "read", "delayed") is None
    value_becomes(host, "delayed", 2)


def test_a_lock_keeps_others_out_until_it_is_released(host: RunningHost) -> None:
    entity(host, "add", "locked", input=100)
    value_becomes(host, "locked", 100)
    request = {"key": "locked", "seconds": 0.8}
    ids = [host.start_orchestration("transfers", request | {"amount": n}) for n in (1, 2)]
    time.sleep(0.3)
    entity(host, "add", "locked", input=1000)
    outputs = sorted((host.finished(one)["output"] for one in ids), key=lambda o: o["before"])
    for output in outputs:
        assert output["after"] - output["before"] in (1, 2)
    value_becomes(host, "locked", 1103)


def test_a_lock_of_an_orchestration_that_is_over_is_released(host: RunningHost) -> None:
    instance = host.start_orchestration("dies_with_lock", "orphan")
    time.sleep(0.3)
    entity(host, "add", "orphan", input=1)
    time.sleep(0.3)
    assert entity(host, "read", "orphan") is None
    host.http.post(f"/api/client/terminate_orchestration/{instance}")
    value_becomes(host, "orphan", 1)


def test_a_clean_up_leaves_a_held_lock_alone(host: RunningHost) -> None:
    instance = host.start_orchestration("dies_with_lock", "held")
    time.sleep(0.3)
    assert entity(host, "clean")[1] == 0
    entity(host, "add", "held", input=1)
    time.sleep(0.3)
    assert entity(host, "read", "held") is None
    host.http.post(f"/api/client/terminate_orchestration/{instance}")
    value_becomes(host, "held", 1)


def test_a_deleted_entity_is_gone_and_can_come_back(host: RunningHost) -> None:
    entity(host, "add", "deleted", input=1)
    value_becomes(host, "deleted", 1)
    assert "deleted" in entity(host, "list")
    entity(host, "delete", "deleted")
    value_becomes(host, "deleted", None)
    assert "deleted" not in entity(host, "list")
    assert host.http.get(f"{ENTITIES}/Counter/deleted").status_code == 404
    entity(host, "add", "deleted", input=7)
    value_becomes(host, "deleted", 7)


def test_entities_answer_over_http(host: RunningHost) -> None:
    assert host.http.post(f"{ENTITIES}/Counter/web?op=add", json=3).status_code == 202
    value_becomes(host, "web", 3)
    assert host.http.get(f"{ENTITIES}/Counter/web").json() == 3
    listed = host.http.get(f"{ENTITIES}/counter", params={"fetchState": "true"}).json()
    assert {"name": "counter", "key": "web"} in [one["entityId"] for one in listed]
    assert next(one["state"] for one in listed if one["entityId"]["key"] == "web") == 3
