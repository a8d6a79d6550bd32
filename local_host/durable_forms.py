"""How the Durable HTTP API reads its query parameters and writes its answers."""

import json
from datetime import UTC, datetime
from typing import Any

from durabletask.internal import orchestrator_service_pb2 as pb
from google.protobuf import timestamp_pb2, wrappers_pb2
from starlette.requests import Request

_STATUS_NAMES = {
    pb.ORCHESTRATION_STATUS_PENDING: "Pending",
    pb.ORCHESTRATION_STATUS_RUNNING: "Running",
    pb.ORCHESTRATION_STATUS_COMPLETED: "Completed",
    pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW: "ContinuedAsNew",
    pb.ORCHESTRATION_STATUS_FAILED: "Failed",
    pb.ORCHESTRATION_STATUS_CANCELED: "Canceled",
    pb.ORCHESTRATION_STATUS_TERMINATED: "Terminated",
    pb.ORCHESTRATION_STATUS_SUSPENDED: "Suspended",
}
_STATUSES = {name.lower(): status for status, name in _STATUS_NAMES.items()}
UNFINISHED = ("Pending", "Running", "Suspended", "ContinuedAsNew")


class BadQueryError(ValueError):
    """A query parameter cannot be read."""


def entity_id(request: Request) -> str:
    return f"@{request.path_params['name'].lower()}@{request.path_params['key']}"


def entity_json(entity: pb.EntityMetadata) -> dict[str, Any]:
    _, name, key = entity.instanceId.split("@", 2)
    content: dict[str, Any] = {
        "entityId": {"name": name, "key": key},
        "lastOperationTime": _iso(entity.lastModifiedTime),
    }
    if entity.HasField("serializedState"):
        content["state"] = _parsed(entity.serializedState.value)
    return content


def state_json(state: pb.OrchestrationState, *, show_input: bool) -> dict[str, Any]:
    output = _parsed(state.output.value) if state.HasField("output") else None
    if state.HasField("failureDetails"):
        output = f"{state.failureDetails.errorType}: {state.failureDetails.errorMessage}"
    return {
        "name": state.name,
        "instanceId": state.instanceId,
        "runtimeStatus": _STATUS_NAMES[state.orchestrationStatus],
        "input": _parsed(state.input.value) if show_input and state.HasField("input") else None,
        "customStatus": (
            _parsed(state.customStatus.value) if state.HasField("customStatus") else None
        ),
        "output": output,
        "createdTime": _iso(state.createdTimestamp),
        "lastUpdatedTime": _iso(state.lastUpdatedTimestamp),
    }


def _iso(timestamp: timestamp_pb2.Timestamp) -> str:
    return timestamp.ToDatetime(tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


async def json_body(request: Request) -> str | None:
    """The body, which must be JSON; None for none."""
    body = (await request.body()).decode("utf-8", "replace")
    if not body.strip():
        return None
    try:
        json.loads(body)
    except ValueError:
        raise BadQueryError("the body is not JSON") from None
    return body


def flag_parameter(request: Request, name: str, *, default: bool = False) -> bool:
    value = request.query_params.get(name)
    if value is None:
        return default
    if value.lower() not in ("true", "false"):
        raise BadQueryError(f"{name} is true or false")
    return value.lower() == "true"


def count_parameter(request: Request, name: str, default: int) -> int:
    value = request.query_params.get(name, str(default))
    if not value.isdigit() or int(value) < 1:
        raise BadQueryError(f"{name} is a number above 0")
    return int(value)


def status_parameter(request: Request) -> list[pb.OrchestrationStatus]:
    text = request.query_params.get("runtimeStatus", "")
    try:
        return [_STATUSES[name.strip().lower()] for name in text.split(",") if name.strip()]
    except KeyError as error:
        raise BadQueryError(f"{error.args[0]!r} is no runtime status") from None


def time_parameter(request: Request, name: str) -> timestamp_pb2.Timestamp | None:
    text = request.query_params.get(name)
    if not text:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise BadQueryError(f"{name} is not an ISO 8601 time") from None
    timestamp = timestamp_pb2.Timestamp()
    timestamp.FromDatetime(when if when.tzinfo else when.replace(tzinfo=UTC))
    return timestamp


def reason_parameter(request: Request) -> wrappers_pb2.StringValue | None:
    text = request.query_params.get("reason")
    return None if text is None else wrappers_pb2.StringValue(value=text)
