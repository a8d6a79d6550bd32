"""The function app: checks its configuration and registers every blueprint, nothing else.

A function is served when its module is imported here.
"""

import azure.durable_functions as df
import azure.functions as func

from activities import (
    assess_study,
    batch_objects,
    build_evidence,
    escalate_item,
    inspect_objects,
    pack_evidence,
    plan_dataset,
    plan_evidence,
    publish_dataset,
    publish_review,
    render_examples,
    report_review,
    screen_slices,
    send_report,
    settle_study,
    survey_inbox,
    take_inventory,
    unpack_archive,
)
from orchestrators import export_evidence, prepare_dataset, report_study, review_study
from slicewatch import custody_chain, identity, model_registry, settings, triage
from triggers import (
    dataset_prepare,
    dataset_status,
    detect,
    dropbox,
    health,
    me,
    qido_instances,
    qido_series,
    qido_series_instances,
    qido_studies,
    qido_study_instances,
    qido_study_series,
    review_page,
    stow_store,
    studies_upload,
    study_close,
    study_evidence,
    study_status,
    sweep,
    training_inbox,
    ups_change_state,
    ups_create,
    ups_request_cancellation,
    ups_retrieve,
    ups_search,
    ups_update,
    wado_bulkdata,
    wado_frames,
    wado_frames_rendered,
    wado_instance,
    wado_instance_metadata,
    wado_rendered,
    wado_series,
    wado_series_metadata,
    wado_study,
    wado_study_metadata,
    worklist,
    worklist_claim,
    worklist_correction,
    worklist_decision,
    worklist_item,
    worklist_release,
)

# A broken setting, key, model or policy stops the app here, with an error that names it, and not at
# the first study.
identity.check(settings.current())
custody_chain.signer_of(settings.current())
model_registry.check()
triage.current()

# Who may do what is one mechanism: the identity that each door asks for. Function keys are none.
app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)
for module in [*globals().values()]:
    if isinstance(getattr(module, "bp", None), df.Blueprint):
        app.register_functions(module.bp)
