"""The HTTP API of Durable Functions under ``/runtime/webhooks/durabletask``."""

import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, cast
from urllib.parse import quote

import grpc
from azure.durable_functions.http import HttpManagementPayload
from azure.durable_functions.internal.compat.history_projection import project_history
from durabletask import history
from durabletask.internal import orchestrator_service_pb2 as pb
from google.protobuf import wrappers_pb2
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from local_host.durable_forms import (
    UNFINISHED,
    BadQueryError,
    count_parameter,
    entity_id,
    entity_json,
    flag_parameter,
    json_body,
    reason_parameter,
    state_json,
    status_parameter,
    time_parameter,
)
from local_host.engine import Engine
from local_host.front import presented_key
from local_host.keys import FunctionKeys

BASE_PATH = "/runtime/webhooks/durabletask"
_PLACEHOLDER = "INSTANCEID"
_EXTENSION = "durabletask_extension"
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
            except BadQueryError as error:
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
        body = await json_body(request)
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
        content = state_json(state, show_input=flag_parameter(request, "showInput", default=True))
        if flag_parameter(request, "showHistory"):
            content["historyEvents"] = self._history(request, instance_id)
        if content["runtimeStatus"] in UNFINISHED:
            links = self._links(request, instance_id)
            headers = {"location": links["statusQueryGetUri"], "retry-after": "10"}
            return JSONResponse(content, status_code=202, headers=headers)
        failed = content["runtimeStatus"] == "Failed"
        failed = failed and flag_parameter(request, "returnInternalServerErrorOnFailure")
        return JSONResponse(content, status_code=500 if failed else 200)

    def _history(self, request: Request, instance_id: str) -> list[dict[str, Any]]:
        chunks = self._engine.StreamInstanceHistory(
            pb.StreamInstanceHistoryRequest(instanceId=instance_id), _CALL
        )
        events = [history._from_protobuf(event) for chunk in chunks for event in chunk.events]
        return project_history(
            events,
            show_input=flag_parameter(request, "showInput"),
            show_history_output=flag_parameter(request, "showHistoryOutput"),
        )

    async def _query(self, request: Request) -> Response:
        query = pb.InstanceQuery(
            runtimeStatus=status_parameter(request),
            createdTimeFrom=time_parameter(request, "createdTimeFrom"),
            createdTimeTo=time_parameter(request, "createdTimeTo"),
            maxInstanceCount=count_parameter(request, "top", 100),
            fetchInputsAndOutputs=True,
        )
        for name, target in (("instanceIdPrefix", query.instanceIdPrefix),):
            if request.query_params.get(name):
                target.value = request.query_params[name]
        token = request.headers.get("x-ms-continuation-token")
        if token:
            query.continuationToken.value = token
        found = self._engine.QueryInstances(pb.QueryInstancesRequest(query=query), _CALL)
        show_input = flag_parameter(request, "showInput", default=True)
        states = [state_json(state, show_input=show_input) for state in found.orchestrationState]
        headers = {}
        if found.HasField("continuationToken"):
            headers["x-ms-continuation-token"] = found.continuationToken.value
        return JSONResponse(states, headers=headers)

    async def _purge_one(self, request: Request) -> Response:
        call = pb.PurgeInstancesRequest(instanceId=request.path_params["id"])
        return self._purged(call)

    async def _purge_many(self, request: Request) -> Response:
        chosen = pb.PurgeInstanceFilter(
            runtimeStatus=status_parameter(request),
            createdTimeFrom=time_parameter(request, "createdTimeFrom"),
            createdTimeTo=time_parameter(request, "createdTimeTo"),
        )
        return self._purged(pb.PurgeInstancesRequest(purgeInstanceFilter=chosen))

    def _purged(self, call: pb.PurgeInstancesRequest) -> Response:
        count = self._engine.PurgeInstances(call, _CALL).deletedInstanceCount
        if not count:
            return Response(status_code=404)
        return JSONResponse({"instancesDeleted": count})

    async def _raise_event(self, request: Request) -> Response:
        body = await json_body(request)
        call = pb.RaiseEventRequest(
            instanceId=request.path_params["id"], name=request.path_params["event"]
        )
        if body is not None:
            call.input.value = body
        self._engine.RaiseEvent(call, _CALL)
        return Response(status_code=202)

    async def _terminate(self, request: Request) -> Response:
        output = reason_parameter(request)
        if output is not None:
            output.value = json.dumps(output.value)
        self._engine.TerminateInstance(
            pb.TerminateRequest(instanceId=request.path_params["id"], output=output), _CALL
        )
        return Response(status_code=202)

    async def _suspend(self, request: Request) -> Response:
        self._engine.SuspendInstance(
            pb.SuspendRequest(
                instanceId=request.path_params["id"], reason=reason_parameter(request)
            ),
            _CALL,
        )
        return Response(status_code=202)

    async def _resume(self, request: Request) -> Response:
        self._engine.ResumeInstance(
            pb.ResumeRequest(
                instanceId=request.path_params["id"], reason=reason_parameter(request)
            ),
            _CALL,
        )
        return Response(status_code=202)

    async def _rewind(self, request: Request) -> Response:
        self._engine.RewindInstance(
            pb.RewindInstanceRequest(
                instanceId=request.path_params["id"], reason=reason_parameter(request)
            ),
            _CALL,
        )
        return Response(status_code=202)

    async def _restart(self, request: Request) -> Response:
        new_id = flag_parameter(request, "restartWithNewInstanceId", default=True)
        call = pb.RestartInstanceRequest(
            instanceId=request.path_params["id"], restartWithNewInstanceId=new_id
        )
        response = self._engine.RestartInstance(call, _CALL)
        return self._accepted(request, response.instanceId)

    # Entities

    async def _entity(self, request: Request) -> Response:
        call = pb.GetEntityRequest(instanceId=entity_id(request), includeState=True)
        found = self._engine.GetEntity(call, _CALL)
        if not found.exists:
            return Response(status_code=404)
        return Response(found.entity.serializedState.value, media_type="application/json")

    async def _list_entities(self, request: Request) -> Response:
        name = request.path_params.get("name")
        query = pb.EntityQuery(
            lastModifiedFrom=time_parameter(request, "lastOperationTimeFrom"),
            lastModifiedTo=time_parameter(request, "lastOperationTimeTo"),
            includeState=flag_parameter(request, "fetchState"),
            pageSize=wrappers_pb2.Int32Value(value=count_parameter(request, "top", 100)),
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
        return JSONResponse([entity_json(entity) for entity in found.entities], headers=headers)

    async def _signal(self, request: Request) -> Response:
        call = pb.SignalEntityRequest(
            instanceId=entity_id(request),
            name=request.query_params.get("op", ""),
            requestId=str(uuid.uuid4()),
        )
        body = await json_body(request)
        if body is not None:
            call.input.value = body
        self._engine.SignalEntity(call, _CALL)
        return Response(status_code=202)
