"""Orchestrators, activities and entities."""

import azure.durable_functions as df
from durabletask.task import when_all

orchestrations = df.Blueprint()


@orchestrations.activity_trigger(input_name="number")
def double(number: int) -> int:
    return number * 2


@orchestrations.orchestration_trigger(context_name="context")
def fan_out(context, count):  # type: ignore[no-untyped-def]
    tasks = [context.call_activity("double", input=i) for i in range(count)]
    results = yield when_all(tasks)
    return sum(results)
