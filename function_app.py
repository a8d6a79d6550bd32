"""The function app: checks its configuration and registers every blueprint, nothing else."""

import azure.durable_functions as df

from activities import (
    assess_study,
    batch_objects,
    escalate_item,
    inspect_objects,
    plan_dataset,
    publish_dataset,
    publish_review,
    render_examples,
    screen_slices,
    settle_study,
    survey_inbox,
    take_inventory,
    unpack_archive,
)
from orchestrators import prepare_dataset, review_study
from slicewatch import model_registry, settings, triage
from triggers import (
    dataset_prepare,
    dataset_status,
    detect,
    dropbox,
    health,
    stow_store,
    studies_upload,
    study_close,
    study_status,
    sweep,
    training_inbox,
    worklist,
    worklist_claim,
    worklist_decision,
    worklist_release,
)

# A broken setting, model description or policy stops the app here, with an error that names it,
# and not at the first study.
settings.current()
model_registry.current()
triage.current()

app = df.DFApp()
for module in (
    # the doors
    dataset_prepare,
    dataset_status,
    detect,
    dropbox,
    health,
    stow_store,
    studies_upload,
    study_close,
    study_status,
    sweep,
    training_inbox,
    worklist,
    worklist_claim,
    worklist_decision,
    worklist_release,
    # the plan
    prepare_dataset,
    review_study,
    # the work
    assess_study,
    batch_objects,
    escalate_item,
    inspect_objects,
    plan_dataset,
    publish_dataset,
    publish_review,
    render_examples,
    screen_slices,
    settle_study,
    survey_inbox,
    take_inventory,
    unpack_archive,
):
    app.register_functions(module.bp)
