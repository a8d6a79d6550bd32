"""The function app: registers every blueprint, nothing else."""

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

app = df.DFApp()
for module in (
    review_study,
    take_inventory,
    screen_slices,
    assess_study,
    publish_review,
    settle_study,
    escalate_item,
):
    app.register_functions(module.bp)
