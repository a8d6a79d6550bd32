"""``dataset_prepare``: prepare a data set now, without waiting for more to come."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from slicewatch import dataset_store, settings, storage
from slicewatch.identity import Role
from triggers import access
from triggers.datasets import dataset_of, ensure_preparation, unknown_dataset
from triggers.responses import answers_problems, as_json

bp = df.Blueprint()


@bp.route("datasets/{dataset}/prepare", methods=["POST"])
@bp.durable_client_input(client_name="client")
@answers_problems
def dataset_prepare(
    req: func.HttpRequest, client: df.SyncDurableFunctionsClient
) -> func.HttpResponse:
    """Make the data set of all that its inbox holds, and of what readers decided where it takes
    that. 202: under way, ``Location`` says where it stands; 400: no name of a data set; 404:
    nothing came for it.
    """
    access.require(req, Role.UPLOADER, Role.ADMINISTRATOR)
    dataset = dataset_of(req)
    store, config = storage.current(), settings.current()
    takes_feedback = (
        config.training_feedback == "on" and dataset == config.training_feedback_dataset
    )
    if not takes_feedback and not dataset_store.inbox(store, dataset):
        raise unknown_dataset()
    ensure_preparation(client, store, config, dataset, at_once=True)
    location = req.url.split("?")[0].removesuffix("/prepare")
    return as_json(
        {"dataset": dataset, "status": "accepted", "location": location},
        202,
        headers={"Location": location},
    )
