"""``training_inbox``: annotated images that are put below ``training/inbox/{dataset}``.

They stay there: a data set is made of all that its folder holds. ``SLICEWATCH_DROPBOX_SOURCE``
says how they are noticed, as for `dropbox`.
"""

from __future__ import annotations

import logging

import azure.durable_functions as df
import azure.functions as func

from slicewatch import dataset_store, settings, storage
from triggers.datasets import ensure_preparation

bp = df.Blueprint()
_log = logging.getLogger(__name__)


@bp.blob_trigger(
    arg_name="blob",
    path=f"{dataset_store.TRAINING}/inbox/{{dataset}}/{{name}}",
    connection=settings.connection_setting(),
    source=func.BlobSource(settings.current().dropbox_source),
)
@bp.durable_client_input(client_name="client")
def training_inbox(blob: func.InputStream, client: df.SyncDurableFunctionsClient) -> None:
    """See that the data set is prepared once nothing more comes."""
    name = (blob.name or "").removeprefix(f"{dataset_store.TRAINING}/")
    dataset = dataset_store.dataset_of(name)
    if dataset is None:
        # Names of files may be names of patients: the log has none of them.
        _log.warning(
            "a blob below training/inbox is left alone: its folder is no name of a data set "
            "(3 to 63 lower-case letters, digits and single hyphens)"
        )
        return
    ensure_preparation(client, storage.current(), settings.current(), dataset)
