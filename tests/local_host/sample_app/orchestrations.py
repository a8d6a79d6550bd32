"""Orchestrators and activities: one for each feature that the tests ask for."""

import os
import signal
import time
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import azure.durable_functions as df
from durabletask.entities import EntityContext, EntityInstanceId
from durabletask.task import (
    OrchestrationContext,
    RetryPolicy,
    Task,
    TaskFailedError,
    when_all,
    when_any,
)

orchestrations = df.Blueprint()

type Steps[Result] = Generator[Task[Any], Any, Result]


def _append(path: str, text: str) -> None:
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(text + "\n")


@orchestrations.activity_trigger(input_name="number")
def double(number: int) -> int:
    return number * 2


@orchestrations.activity_trigger(input_name="request")
def note(request: dict) -> int:  # type: ignore[type-arg]  # the worker wants bare types
    """Append a line to a file; how many lines it then has."""
    _append(request["file"], request.get("text", "-"))
    return len(Path(request["file"]).read_text("utf-8").splitlines())


@orchestrations.activity_trigger(input_name="request")
def fail_until(request: dict) -> int:  # type: ignore[type-arg]  # the worker wants bare types
    """Fail until the file has ``times`` lines."""
    count = note_line(request["file"])
    if count < request["times"]:
        raise ConnectionError(f"attempt {count}")
    return count


def note_line(path: str) -> int:
    _append(path, "-")
    return len(Path(path).read_text("utf-8").splitlines())


@orchestrations.activity_trigger(input_name="request")
def wordless(request: str) -> None:
    raise RuntimeError


@orchestrations.activity_trigger(input_name="request")
def nap(request: dict) -> int:  # type: ignore[type-arg]  # the worker wants bare types
    """Say that it runs, sleep, and give the process id."""
    _append(request["file"], str(os.getpid()))
    time.sleep(request["seconds"])
    return os.getpid()


@orchestrations.activity_trigger(input_name="request")
def crash(request: dict) -> int:  # type: ignore[type-arg]  # the worker wants bare types
    """End the worker process the first ``times`` times."""
    count = note_line(request["file"])
    if count <= request["times"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return count


@orchestrations.activity_trigger(input_name="request", activity="Renamed-Activity")
async def renamed(request: str) -> str:
    return f"renamed {request}"


@orchestrations.activity_trigger(input_name="folder")
def busy(folder: str) -> int:
    """How many of these activities ran at the same time, at most, as far as this one saw."""
    mine = Path(folder) / f"{os.getpid()}-{time.monotonic_ns()}"
    mine.touch()
    most = 0
    for _ in range(6):
        most = max(most, len(list(Path(folder).iterdir())))
        time.sleep(0.02)
    mine.unlink()
    return most


@orchestrations.orchestration_trigger(context_name="context")
def fan_out(context: OrchestrationContext, count: int) -> Steps[int]:
    results = yield when_all([context.call_activity("double", input=i) for i in range(count)])
    return sum(results)


@orchestrations.orchestration_trigger(context_name="context")
def many_at_once(context: OrchestrationContext, request: dict[str, Any]) -> Steps[int]:
    tasks: list[Task[Any]] = [
        context.call_activity("busy", input=request["folder"]) for _ in range(request["count"])
    ]
    counts: list[int] = yield when_all(tasks)
    return max(counts)


@orchestrations.orchestration_trigger(context_name="context")
def with_retry(context: OrchestrationContext, request: dict[str, Any]) -> Steps[Any]:
    policy = RetryPolicy(
        first_retry_interval=timedelta(milliseconds=50),
        max_number_of_attempts=request["attempts"],
    )
    return (yield context.call_activity("fail_until", input=request, retry_policy=policy))


@orchestrations.orchestration_trigger(context_name="context")
def catches(context: OrchestrationContext, activity: str) -> Steps[Any]:
    try:
        yield context.call_activity(activity, input="x")
    except TaskFailedError as error:
        return {"type": error.details.error_type, "message": error.details.message}
    return "nothing failed"


@orchestrations.orchestration_trigger(context_name="context")
def crashing(context: OrchestrationContext, request: dict[str, Any]) -> Steps[Any]:
    return (yield context.call_activity("crash", input=request))


@orchestrations.orchestration_trigger(context_name="context")
def napping(context: OrchestrationContext, request: dict[str, Any]) -> Steps[Any]:
    return (yield context.call_activity("nap", input=request))


@orchestrations.orchestration_trigger(context_name="context")
def crashing_orchestrator(context: OrchestrationContext, request: dict[str, Any]) -> Steps[str]:
    """Ends its worker process on the first replay that comes after the activity."""
    yield context.call_activity("double", input=1)
    marker = Path(request["file"])
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


@orchestrations.orchestration_trigger(context_name="context")
def uses_renamed(context: OrchestrationContext, word: str) -> Steps[Any]:
    return (yield context.call_activity("renamed-activity", input=word))


@orchestrations.orchestration_trigger(context_name="context")
def waits(context: OrchestrationContext, seconds: float) -> Steps[float]:
    before = context.current_utc_datetime
    yield context.create_timer(timedelta(seconds=seconds))
    return (context.current_utc_datetime - before).total_seconds()


@orchestrations.orchestration_trigger(context_name="context")
def decision(context: OrchestrationContext, seconds: float) -> Steps[Any]:
    """An event against a timer."""
    context.set_custom_status({"phase": "waiting"})
    event = context.wait_for_external_event("decide")
    timer = context.create_timer(timedelta(seconds=seconds))
    winner = yield when_any([event, timer])
    context.set_custom_status({"phase": "done"})
    return event.get_result() if winner is event else "too late"


@orchestrations.orchestration_trigger(context_name="context")
def two_events(context: OrchestrationContext, _input: Any) -> Steps[list[Any]]:
    first = yield context.wait_for_external_event("tick")
    second = yield context.wait_for_external_event("tick")
    return [first, second]


@orchestrations.orchestration_trigger(context_name="context")
def child(context: OrchestrationContext, request: dict[str, Any]) -> Steps[Any]:
    if request.get("fail"):
        raise KeyError("the child's own error")
    if request.get("seconds"):
        yield context.create_timer(timedelta(seconds=request["seconds"]))
    if request.get("renew"):
        context.continue_as_new({"renew": request["renew"] - 1})
        return None
    return {"id": context.instance_id, "parent": context.parent_instance_id}


@orchestrations.orchestration_trigger(context_name="context")
def parent(context: OrchestrationContext, request: dict[str, Any]) -> Steps[Any]:
    try:
        return (
            yield context.call_sub_orchestrator(
                "child", input=request, instance_id=request.get("id")
            )
        )
    except TaskFailedError as error:
        return {"type": error.details.error_type, "message": error.details.message}


@orchestrations.orchestration_trigger(context_name="context")
def counts_down(context: OrchestrationContext, request: dict[str, Any]) -> Steps[Any]:
    """Continues as new, leaving a timer and an activity of the old execution behind."""
    if request["left"] == 0:
        yield context.create_timer(timedelta(seconds=1.2))
        return {"seen": request["seen"], "at": "end"}
    late: Task[Any] = context.call_activity("nap", input={"file": os.devnull, "seconds": 0.4})
    timer = context.create_timer(timedelta(seconds=0.6))
    event = context.wait_for_external_event("go")
    winner = yield when_any([event, late, timer])
    seen = "event" if winner is event else "leftover"
    context.continue_as_new(
        {"left": request["left"] - 1, "seen": [*request["seen"], seen]}, save_events=True
    )
    return None


@orchestrations.orchestration_trigger(context_name="context")
def rewindable(context: OrchestrationContext, request: dict[str, Any]) -> Steps[bool]:
    """Fails until its file exists; a second activity still runs when it does."""
    slow: Task[int] = context.call_activity("nap", input={"file": request["log"], "seconds": 0.5})
    yield context.call_activity("needs_file", input=request["file"])
    pid: int = yield slow
    return pid > 0


@orchestrations.activity_trigger(input_name="path")
def needs_file(path: str) -> bool:
    if not Path(path).exists():
        raise FileNotFoundError("not yet")
    return True


# v1-style, as call_http is on the compatible context alone
@orchestrations.orchestration_trigger(context_name="context")  # type: ignore[arg-type]
def http_caller(context: df.DurableOrchestrationContext) -> Steps[dict[str, Any]]:
    request = context.get_input()
    response = yield context.call_http("GET", request["uri"])
    return {"status": response.status_code, "content": response.content}


# Entities


@orchestrations.entity_trigger(context_name="context", entity_name="Counter")
def counter(context: EntityContext, amount: Any) -> Any:
    value = context.get_state(int, 0)
    match context.operation:
        case "add":
            context.set_state(value + amount)
        case "get":
            return value
        case "fail":
            raise ValueError("the entity refuses")
        case "delete":
            context.set_state(None)
        case "start":
            context.schedule_new_orchestration("fan_out", input=3, instance_id=amount)
        case "pass_on":
            context.signal_entity(EntityInstanceId("Counter", amount), "add", 10)
    return value


@orchestrations.orchestration_trigger(context_name="context")
def asks_entity(context: OrchestrationContext, request: dict[str, Any]) -> Steps[Any]:
    entity = EntityInstanceId("Counter", request["key"])
    try:
        if "signal" in request:
            context.signal_entity(entity, "add", request["signal"])
        return (yield context.call_entity(entity, request["operation"], request.get("input")))
    except Exception as error:
        return f"refused: {error}"


@orchestrations.orchestration_trigger(context_name="context")
def transfers(context: OrchestrationContext, request: dict[str, Any]) -> Steps[dict[str, Any]]:
    """Read, wait, write: right only when the lock keeps the others out."""
    entity = EntityInstanceId("Counter", request["key"])
    with (yield context.lock_entities([entity])):
        value = yield context.call_entity(entity, "get")
        yield context.create_timer(timedelta(seconds=request["seconds"]))
        yield context.call_entity(entity, "add", request["amount"])
        after = yield context.call_entity(entity, "get")
    return {"before": value, "after": after}


@orchestrations.orchestration_trigger(context_name="context")
def dies_with_lock(context: OrchestrationContext, key: str) -> Steps[None]:
    with (yield context.lock_entities([EntityInstanceId("Counter", key)])):
        yield context.wait_for_external_event("never")


@orchestrations.orchestration_trigger(context_name="context")
def delayed_signal(context: OrchestrationContext, request: dict[str, Any]) -> Steps[bool]:
    when = context.current_utc_datetime.replace(tzinfo=UTC) + timedelta(seconds=request["seconds"])
    context.signal_entity(EntityInstanceId("Counter", request["key"]), "add", 1, signal_time=when)
    yield context.call_activity("double", input=1)
    return datetime.now(UTC) < when
