"""The HTTP API of Durable Functions under ``/runtime/webhooks/durabletask``."""

import json
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, NoReturn, cast
from urllib.parse import quote

import grpc
from azure.durable_functions.http import HttpManagementPayload
from azure.durable_functions.internal.compat.history_projection import project_history
from durabletask import history
from durabletask.internal import orchestrator_service_pb2 as pb
from google.protobuf import timestamp_pb2, wrappers_pb2
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from local_host.engine import Engine
from local_host.front import presented_key
from local_host.keys import FunctionKeys

BASE_PATH = "/runtime/webhooks/durabletask"
_PLACEHOLDER = "INSTANCEID"
_EXTENSION = "durabletask_extension"
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
_UNFINISHED = ("Pending", "Running", "Suspended", "ContinuedAsNew")
_HTTP_STATUS = {
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.FAILED_PRECONDITION: 410,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
}


def client_configuration(
    hub_name: str, base_url: str, rpc_address: str, keys: FunctionKeys | None, max_bytes: int
) -> dict[str, Any]:
    """What a durable client binding gives the app, as the Durable extension makes it."""
    query = f"taskHub={quote(hub_name)}&connection=Storage"
    if keys is not None:
        query += f"&code={quote(keys.system_key(_EXTENSION))}"
    webhooks = f"{base_url}{BASE_PATH}"
    instance = HttpManagementPayload(
        _PLACEHOLDER, f"{webhooks}/instances/{_PLACEHOLDER}", query
    ).to_json()
    create = f"{webhooks}/orchestrators/{{functionName}}"
    return {
        "taskHubName": hub_name,
        "connectionName": "Storage",
        "creationUrls": {
            "createNewInstancePostUri": f"{create}[/{{instanceId}}]?{query}",
            "createAndWaitOnNewInstancePostUri": (
                f"{create}[/{{instanceId}}]?timeout={{timeoutInSeconds}}"
                f"&pollingInterval={{intervalInSeconds}}&{query}"
            ),
        },
        "managementUrls": instance,
        "baseUrl": webhooks,
        "requiredQueryStringParameters": query,
        "rpcBaseUrl": rpc_address,
        "httpBaseUrl": webhooks,
        "maxGrpcMessageSizeInBytes": max_bytes,
        "grpcHttpClientTimeout": "00:01:40",
    }


class _Refused(Exception):
    """The engine refuses a call."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code


class _Call:
    """The part of a gRPC call that the engine uses, for calls from inside the host."""

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        raise _Refused(code, details)


_CALL = cast(grpc.ServicerContext, _Call())


class _BadQueryError(ValueError):
    """A query parameter cannot be read."""


class DurableWebhooks:
    """Status, events, control, queries and entities over HTTP."""

    def __init__(
        self, engine: Engine, hub_name: str, client: dict[str, Any], keys: FunctionKeys | None
    ) -> None:
        self._engine = engine
        self._hub_name = hub_name
        self._client = client
        self._keys = keys

    def routes(self) -> list[BaseRoute]:
        """The routes under ``/runtime/webhooks/durabletask``."""
        instance = "/instances/{id}"
        table: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
            ("POST", "/orchestrators/{name}", self._start),
            ("POST", "/orchestrators/{name}/{id}", self._start),
            ("GET", "/instances", self._query),
            ("DELETE", "/instances", self._purge_many),
            ("GET", instance, self._status),
            ("DELETE", instance, self._purge_one),
            ("POST", f"{instance}/raiseEvent/{{event}}", self._raise_event),
            ("POST", f"{instance}/terminate", self._terminate),
            ("POST", f"{instance}/suspend", self._suspend),
            ("POST", f"{instance}/resume", self._resume),
            ("POST", f"{instance}/rewind", self._rewind),
            ("POST", f"{instance}/restart", self._restart),
            ("GET", "/entities", self._list_entities),
            ("GET", "/entities/{name}", self._list_entities),
            ("GET", "/entities/{name}/{key}", self._entity),
            ("POST", "/entities/{name}/{key}", self._signal),
        ]
        return [
            Route(BASE_PATH + path, self._guarded(endpoint), methods=[method])
            for method, path, endpoint in table
        ]

    def _guarded(
        self, endpoint: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def guard(request: Request) -> Response:
            keys = self._keys
            if keys is not None and not keys.admits_webhook(_EXTENSION, presented_key(request)):
                return Response(status_code=401)
            try:
                return await endpoint(request)
            except _Refused as refused:
                status = _HTTP_STATUS.get(refused.code, 500)
                return JSONResponse({"message": str(refused)}, status_code=status)
            except _BadQueryError as error:
                return JSONResponse({"message": str(error)}, status_code=400)

        return guard

    def _links(self, request: Request, instance_id: str) -> HttpManagementPayload:
        return HttpManagementPayload(
            instance_id,
            "",
            str(self._client["requiredQueryStringParameters"]),
            management_urls=self._client["managementUrls"],
            request_origin=f"{request.url.scheme}://{request.url.netloc}",
        )

    def _accepted(self, request: Request, instance_id: str) -> Response:
        links = self._links(request, instance_id)
        headers = {"location": links["statusQueryGetUri"], "retry-after": "10"}
        return JSONResponse(links.to_json(), status_code=202, headers=headers)

    # Instances

    async def _start(self, request: Request) -> Response:
        call = pb.CreateInstanceRequest(
            instanceId=request.path_params.get("id", ""), name=request.path_params["name"]
        )
        body = await _json_text(request)
        if body is not None:
            call.input.value = body
        call.instanceId = call.instanceId or uuid.uuid4().hex
        response = self._engine.StartInstance(call, _CALL)
        return self._accepted(request, response.instanceId)

    async def _status(self, request: Request) -> Response:
        instance_id = request.path_params["id"]
        found = self._engine.GetInstance(
            pb.GetInstanceRequest(instanceId=instance_id, getInputsAndOutputs=True), _CALL
        )
        if not found.exists:
            return Response(status_code=404)
        state = found.orchestrationState
        content = _state_json(state, show_input=_flag(request, "showInput", default=True))
        if _flag(request, "showHistory"):
            content["historyEvents"] = self._history(request, instance_id)
        if content["runtimeStatus"] in _UNFINISHED:
            links = self._links(request, instance_id)
            headers = {"location": links["statusQueryGetUri"], "retry-after": "10"}
            return JSONResponse(content, status_code=202, headers=headers)
        failed = content["runtimeStatus"] == "Failed"
        failed = failed and _flag(request, "returnInternalServerErrorOnFailure")
        return JSONResponse(content, status_code=500 if failed else 200)

    def _history(self, request: Request, instance_id: str) -> list[dict[str, Any]]:
        chunks = self._engine.StreamInstanceHistory(
            pb.StreamInstanceHistoryRequest(instanceId=instance_id), _CALL
        )
        events = [
            history._from_protobuf(event) for chunk in chunks for event in chunk.events
        ]
        return project_history(
            events,
            show_input=_flag(request, "showInput"),
            show_history_output=_flag(request, "showHistoryOutput"),
        )

    async def _query(self, request: Request) -> Response:
        query = pb.InstanceQuery(
            runtimeStatus=_statuses(request),
            createdTimeFrom=_time(request, "createdTimeFrom"),
            createdTimeTo=_time(request, "createdTimeTo"),
            maxInstanceCount=_count(request, "top", 100),
            fetchInputsAndOutputs=True,
        )
        for name, target in (("instanceIdPrefix", query.instanceIdPrefix),):
            if request.query_params.get(name):
                target.value = request.query_params[name]
        token = request.headers.get("x-ms-continuation-token")
        if token:
            query.continuationToken.value = token
        found = self._engine.QueryInstances(pb.QueryInstancesRequest(query=query), _CALL)
        show_input = _flag(request, "showInput", default=True)
        states = [_state_json(state, show_input=show_input) for state in found.orchestrationState]
        headers = {}
        if found.HasField("continuationToken"):
            headers["x-ms-continuation-token"] = found.continuationToken.value
        return JSONResponse(states, headers=headers)

    async def _purge_one(self, request: Request) -> Response:
        call = pb.PurgeInstancesRequest(instanceId=request.path_params["id"])
        return self._purged(call)

    async def _purge_many(self, request: Request) -> Response:
        chosen = pb.PurgeInstanceFilter(
            runtimeStatus=_statuses(request),
            createdTimeFrom=_time(request, "createdTimeFrom"),
            createdTimeTo=_time(request, "createdTimeTo"),
        )
        return self._purged(pb.PurgeInstancesRequest(purgeInstanceFilter=chosen))

    def _purged(self, call: pb.PurgeInstancesRequest) -> Response:
        count = self._engine.PurgeInstances(call, _CALL).deletedInstanceCount
        if not count:
            return Response(status_code=404)
        return JSONResponse({"instancesDeleted": count})

    async def _raise_event(self, request: Request) -> Response:
        body = await _json_text(request)
        call = pb.RaiseEventRequest(
            instanceId=request.path_params["id"], name=request.path_params["event"]
        )
        if body is not None:
            call.input.value = body
        self._engine.RaiseEvent(call, _CALL)
        return Response(status_code=202)

    async def _terminate(self, request: Request) -> Response:
        output = _reason(request)
        if output is not None:
            output.value = json.dumps(output.value)
        self._engine.TerminateInstance(
            pb.TerminateRequest(instanceId=request.path_params["id"], output=output), _CALL
        )
        return Response(status_code=202)

    async def _suspend(self, request: Request) -> Response:
        self._engine.SuspendInstance(
            pb.SuspendRequest(instanceId=request.path_params["id"], reason=_reason(request)), _CALL
        )
        return Response(status_code=202)

    async def _resume(self, request: Request) -> Response:
        self._engine.ResumeInstance(
            pb.ResumeRequest(instanceId=request.path_params["id"], reason=_reason(request)), _CALL
        )
        return Response(status_code=202)

    async def _rewind(self, request: Request) -> Response:
        self._engine.RewindInstance(
            pb.RewindInstanceRequest(
                instanceId=request.path_params["id"], reason=_reason(request)
            ),
            _CALL,
        )
        return Response(status_code=202)

    async def _restart(self, request: Request) -> Response:
        call = pb.RestartInstanceRequest(
            instanceId=request.path_params["id"],
            restartWithNewInstanceId=_flag(request, "restartWithNewInstanceId", default=True),
        )
        response = self._engine.RestartInstance(call, _CALL)
        return self._accepted(request, response.instanceId)

    # Entities

    async def _entity(self, request: Request) -> Response:
        call = pb.GetEntityRequest(instanceId=_entity_id(request), includeState=True)
        found = self._engine.GetEntity(call, _CALL)
        if not found.exists:
            return Response(status_code=404)
        return Response(found.entity.serializedState.value, media_type="application/json")

    async def _list_entities(self, request: Request) -> Response:
        name = request.path_params.get("name")
        query = pb.EntityQuery(
            lastModifiedFrom=_time(request, "lastOperationTimeFrom"),
            lastModifiedTo=_time(request, "lastOperationTimeTo"),
            includeState=_flag(request, "fetchState"),
            pageSize=wrappers_pb2.Int32Value(value=_count(request, "top", 100)),
        )
        if name:
            query.instanceIdStartsWith.value = f"@{name.lower()}@"
        token = request.headers.get("x-ms-continuation-token")
        if token:
            query.continuationToken.value = token
        found = self._engine.QueryEntities(pb.QueryEntitiesRequest(query=query), _CALL)
        headers = {}
        if found.HasField("continuationToken"):
            headers["x-ms-continuation-token"] = found.continuationToken.value
        return JSONResponse([_entity_json(entity) for entity in found.entities], headers=headers)

    async def _signal(self, request: Request) -> Response:
        call = pb.SignalEntityRequest(
            instanceId=_entity_id(request),
            name=request.query_params.get("op", ""),
            requestId=str(uuid.uuid4()),
        )
        body = await _json_text(request)
        if body is not None:
            call.input.value = body
        self._engine.SignalEntity(call, _CALL)
        return Response(status_code=202)


def _entity_id(request: Request) -> str:
    return f"@{request.path_params['name'].lower()}@{request.path_params['key']}"


def _entity_json(entity: pb.EntityMetadata) -> dict[str, Any]:
    _, name, key = entity.instanceId.split("@", 2)
    content: dict[str, Any] = {
        "entityId": {"name": name, "key": key},
        "lastOperationTime": _iso(entity.lastModifiedTime),
    }
    if entity.HasField("serializedState"):
        content["state"] = _parsed(entity.serializedState.value)
    return content


def _state_json(state: pb.OrchestrationState, *, show_input: bool) -> dict[str, Any]:
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


async def _json_text(request: Request) -> str | None:
    """The body, which must be JSON; None for none."""
    body = (await request.body()).decode("utf-8", "replace")
    if not body.strip():
        return None
    try:
        json.loads(body)
    except ValueError:
        raise _BadQueryError("the body is not JSON") from None
    return body


def _flag(request: Request, name: str, *, default: bool = False) -> bool:
    value = request.query_params.get(name)
    if value is None:
        return default
    if value.lower() not in ("true", "false"):
        raise _BadQueryError(f"{name} is true or false")
    return value.lower() == "true"


def _count(request: Request, name: str, default: int) -> int:
    value = request.query_params.get(name, str(default))
    if not value.isdigit() or int(value) < 1:
        raise _BadQueryError(f"{name} is a number above 0")
    return int(value)


def _statuses(request: Request) -> list[pb.OrchestrationStatus]:
    text = request.query_params.get("runtimeStatus", "")
    try:
        return [_STATUSES[name.strip().lower()] for name in text.split(",") if name.strip()]
    except KeyError as error:
        raise _BadQueryError(f"{error.args[0]!r} is no runtime status") from None


def _time(request: Request, name: str) -> timestamp_pb2.Timestamp | None:
    text = request.query_params.get(name)
    if not text:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise _BadQueryError(f"{name} is not an ISO 8601 time") from None
    timestamp = timestamp_pb2.Timestamp()
    timestamp.FromDatetime(when if when.tzinfo else when.replace(tzinfo=UTC))
    return timestamp


def _reason(request: Request) -> wrappers_pb2.StringValue | None:
    text = request.query_params.get("reason")
    return None if text is None else wrappers_pb2.StringValue(value=text)
