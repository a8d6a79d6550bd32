"""HTTP functions and a timer."""

import asyncio
import hashlib
import json
import os
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import azure.durable_functions as df
import azure.functions as func
from durabletask.entities import EntityInstanceId

doors = df.Blueprint(http_auth_level=func.AuthLevel.FUNCTION)


def _json(content: object, status: int = 200) -> func.HttpResponse:
    return func.HttpResponse(json.dumps(content), status_code=status, mimetype="application/json")


@doors.route(route="echo/{word}/{count:int?}", methods=["GET", "POST"])
def echo(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    local: Any = context.thread_local_storage
    return _json(
        {
            "method": req.method,
            "url": req.url,
            "route": dict(req.route_params),
            "query": dict(req.params),
            "header": req.headers.get("X-Probe"),
            "body": req.get_body().decode(),
            "function": context.function_name,
            "invocation": context.invocation_id,
            "thread_invocation": local.invocation_id,
            "trace_parent": context.trace_context.trace_parent,
            "retry": context.retry_context is None,
            "pid": os.getpid(),
            "setting": os.environ.get("SAMPLE_SETTING"),
        }
    )


@doors.route(route="echo/fixed", methods=["GET"])
def echo_fixed(req: func.HttpRequest) -> str:
    return "fixed"


@doors.route(route="only/{id:guid}", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
async def only_guid(req: func.HttpRequest) -> func.HttpResponse:
    await asyncio.sleep(0)
    return func.HttpResponse(req.route_params["id"])


@doors.route(route="files/{*path}", methods=["GET"])
def catch_all(req: func.HttpRequest) -> func.HttpResponse:
    return _json(dict(req.route_params))


@doors.route(route="digest", methods=["POST"])
def digest(req: func.HttpRequest) -> func.HttpResponse:
    body = req.get_body()
    return _json({"size": len(body), "sha256": hashlib.sha256(body).hexdigest()})


@doors.route(route="large", methods=["GET"])
def large(req: func.HttpRequest) -> func.HttpResponse:
    body = b"0123456789abcdef" * (int(req.params["kib"]) * 64)
    response = func.HttpResponse(body, mimetype="application/octet-stream")
    response.headers.add("Set-Cookie", "a=1")
    response.headers.add("Set-Cookie", "b=2")
    return response


@doors.route(route="nothing", methods=["GET"])
def nothing(req: func.HttpRequest) -> None:
    return None


@doors.route(route="broken", methods=["GET"])
def broken(req: func.HttpRequest) -> func.HttpResponse:
    raise LookupError("a broken function")


@doors.route(route="admin-only", methods=["GET"], auth_level=func.AuthLevel.ADMIN)
def admin_only(req: func.HttpRequest) -> str:
    return "admin"


@doors.route(route="slow", methods=["GET", "POST"])
def slow(req: func.HttpRequest) -> func.HttpResponse:
    if "mark" in req.params:
        Path(req.params["mark"]).write_text(str(os.getpid()), "utf-8")
    time.sleep(float(req.params["seconds"]))
    return func.HttpResponse(str(os.getpid()))


@doors.route(route="crash-once", methods=["GET", "POST"])
def crash_once(req: func.HttpRequest) -> func.HttpResponse:
    marker = Path(req.params["mark"])
    if not marker.exists():
        marker.write_text("crashed", "utf-8")
        os.kill(os.getpid(), signal.SIGKILL)
    return func.HttpResponse("survived")


_meeting = threading.Barrier(2)


@doors.route(route="meet", methods=["GET"])
def meet(req: func.HttpRequest) -> func.HttpResponse:
    """Answers only when two calls run at the same time in one process."""
    _meeting.wait(timeout=10)
    return func.HttpResponse("met")


@doors.route(route="start/{name}", methods=["POST"])
@doors.durable_client_input(client_name="client")
async def start(req: func.HttpRequest, client: df.DurableFunctionsClient) -> func.HttpResponse:
    body = req.get_body()
    instance_id = await client.schedule_new_orchestration(
        req.route_params["name"],
        input=json.loads(body) if body else None,
        instance_id=req.params.get("id"),
    )
    return client.create_check_status_response(req, instance_id)


@doors.route(route="sync-client/{id}", methods=["GET"])
@doors.durable_client_input(client_name="client")
def sync_client(req: func.HttpRequest, client) -> func.HttpResponse:  # type: ignore[no-untyped-def]
    state = client.get_orchestration_state(req.route_params["id"])
    return func.HttpResponse("none" if state is None else state.runtime_status.name)


@doors.timer_trigger(arg_name="timer", schedule="%SAMPLE_SCHEDULE%", run_on_startup=True)
def tick(timer: func.TimerRequest) -> None:
    with Path(os.environ["SAMPLE_TICKS"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"past_due": timer.past_due, "at": time.time()}) + "\n")


_OPERATIONS = {
    "raise_orchestration_event": ("id", "name"),
    "terminate_orchestration": ("id",),
    "suspend_orchestration": ("id",),
    "resume_orchestration": ("id",),
    "restart_orchestration": ("id",),
    "rewind_orchestration": ("id",),
    "purge_orchestration": ("id",),
}


@doors.route(route="client/{operation}/{id}/{name?}", methods=["POST"])
@doors.durable_client_input(client_name="client")
async def client_call(
    req: func.HttpRequest, client: df.DurableFunctionsClient
) -> func.HttpResponse:
    """Call a method of the durable client; the body is its keyword arguments."""
    operation = req.route_params["operation"]
    arguments = [req.route_params[name] for name in _OPERATIONS[operation]]
    keywords = json.loads(req.get_body() or b"{}")
    try:
        result = await getattr(client, operation)(*arguments, **keywords)
    except Exception as error:
        code = getattr(error, "code", None)
        return _json({"error": code().name if callable(code) else str(error)}, 409)
    return _json({"result": result if isinstance(result, str) else repr(result)})


@doors.route(route="entities/{operation}/{key?}", methods=["POST"])
@doors.durable_client_input(client_name="client")
async def entity_call(
    req: func.HttpRequest, client: df.DurableFunctionsClient
) -> func.HttpResponse:
    """Signal, read, list or clean counters."""
    operation = req.route_params["operation"]
    entity = EntityInstanceId("Counter", req.route_params.get("key", "-"))
    if operation == "read":
        found = await client.get_entity(entity)
        return _json(None if found is None else found.get_state(int))
    if operation == "list":
        return _json([one.id.key for one in await client.get_all_entities()])
    if operation == "clean":
        result = await client.clean_entity_storage()
        return _json([result.empty_entities_removed, result.orphaned_locks_released])
    body = json.loads(req.get_body() or b"{}")
    when = datetime.now(UTC) + timedelta(seconds=body["seconds"]) if "seconds" in body else None
    await client.signal_entity(entity, operation, body.get("input"), signal_time=when)
    return _json("signalled")


@doors.route(route="later/{name}", methods=["POST"])
@doors.durable_client_input(client_name="client")
async def later(req: func.HttpRequest, client: df.DurableFunctionsClient) -> func.HttpResponse:
    """Start an orchestration in a while."""
    start_at = datetime.now(UTC) + timedelta(seconds=float(req.params["seconds"]))
    instance_id = await client.schedule_new_orchestration(
        req.route_params["name"], input=2, start_at=start_at
    )
    return _json({"id": instance_id})


@doors.route(route="wait/{id}", methods=["GET"])
@doors.durable_client_input(client_name="client")
async def wait(req: func.HttpRequest, client: df.DurableFunctionsClient) -> func.HttpResponse:
    """Wait for an orchestration, as long as the query says."""
    try:
        state = await client.wait_for_orchestration_completion(
            req.route_params["id"], timeout=float(req.params["seconds"])
        )
    except TimeoutError:
        return func.HttpResponse("timeout")
    assert state is not None
    return func.HttpResponse(state.runtime_status.name)


@doors.route(route="operation", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def operation_status(req: func.HttpRequest) -> func.HttpResponse:
    """Answers 202 until its file has as many lines as the query says."""
    path = Path(req.params["file"])
    with path.open("a", encoding="utf-8") as file:
        file.write("-\n")
    if len(path.read_text("utf-8").splitlines()) < int(req.params["times"]):
        headers = {"Location": req.url, "Retry-After": "0"}
        return func.HttpResponse(status_code=202, headers=headers)
    return func.HttpResponse("done at last")
