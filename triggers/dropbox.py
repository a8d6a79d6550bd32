"""``dropbox``: DICOM and zip files that are put into the container ``dropbox``.

``SLICEWATCH_DROPBOX_SOURCE`` says how they are noticed: ``LogsAndContainerScan`` needs nothing
more and may take minutes on Azure; ``EventGrid`` takes seconds, and is all that Flex Consumption
has. Its event subscription must let through ``Microsoft.Storage.BlobCreated`` of final writes
alone: ``data.api`` one of ``PutBlob``, ``PutBlockList``, ``CopyBlob``, ``FlushWithClose``. Data
Lake storage also tells of ``CreateFile``, when the file is still empty; should such an event come
through, the empty file is left for the event of its content, or for the sweep.
"""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from slicewatch import settings, storage
from triggers.admission import admit_dropped

bp = df.Blueprint()


@bp.blob_trigger(
    arg_name="blob",
    path=f"{storage.DROPBOX}/{{name}}",
    connection=settings.connection_setting(),
    source=func.BlobSource(settings.current().dropbox_source),
)
@bp.durable_client_input(client_name="client")
def dropbox(blob: func.InputStream, client: df.SyncDurableFunctionsClient) -> None:
    """Admit the blob and remove it; what is refused ends in quarantine."""
    # The trigger hands over the content of some version, and not which: it is read again, with
    # its ETag, so that what is removed is what was admitted.
    name = (blob.name or "").removeprefix(f"{storage.DROPBOX}/")
    store = storage.current()
    found = store.info(storage.DROPBOX, name)
    if found is not None and found.size > 0:
        admit_dropped(client, store, settings.current(), name)
