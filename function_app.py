"""The function app: checks its configuration and registers every blueprint, nothing else."""

import azure.durable_functions as df

from activities import (
    assess_study,
    escalate_item,
    publish_review,
    screen_slices,
    settle_study,
    take_inventory,
)
from orchestrators import review_study
from slicewatch import model_registry, settings, triage
from triggers import (
    detect,
    dropbox,
    health,
    stow_store,
    studies_upload,
    study_close,
    study_status,
    sweep,
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
    detect,
    dropbox,
    health,
    stow_store,
    studies_upload,
    study_close,
    study_status,
    sweep,
    worklist,
    worklist_claim,
    worklist_decision,
    worklist_release,
    # the plan
    review_study,
    # the work
    assess_study,
    escalate_item,
    publish_review,
    screen_slices,
    settle_study,
    take_inventory,
):
    app.register_functions(module.bp)
