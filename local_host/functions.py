"""What an app's index says of its functions: name, trigger, bindings."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

HTTP = "httpTrigger"
TIMER = "timerTrigger"
BLOB = "blobTrigger"
QUEUE = "queueTrigger"
ORCHESTRATION = "orchestrationTrigger"
ACTIVITY = "activityTrigger"
ENTITY = "entityTrigger"
WARMUP = "warmupTrigger"

DURABLE_NAME_KEYS = {
    ORCHESTRATION: "orchestration",
    ACTIVITY: "activity",
    ENTITY: "entityName",
}
SERVED_TRIGGERS = frozenset({HTTP, TIMER, BLOB, QUEUE, ORCHESTRATION, ACTIVITY, ENTITY, WARMUP})
SERVED_INPUTS = frozenset({"blob", "durableClient"})
SERVED_OUTPUTS = frozenset({"blob", "queue", "http"})


@dataclass(frozen=True)
class Binding:
    """One binding of a function, as function.json would hold it."""

    name: str
    type: str
    is_output: bool
    options: dict[str, Any] = field(default_factory=dict)

    def text(self, key: str, default: str = "") -> str:
        """The option ``key`` as text, or ``default`` where it is absent or null."""
        value = self.options.get(key)
        return default if value is None else str(value)


@dataclass(frozen=True)
class Function:
    """One function of the app. ``retry`` is the function's retry policy, where it has one."""

    name: str
    trigger: Binding
    bindings: tuple[Binding, ...]
    retry: dict[str, Any] | None = None

    @property
    def inputs(self) -> tuple[Binding, ...]:
        """The input bindings beside the trigger."""
        return tuple(b for b in self.bindings if not b.is_output and b is not self.trigger)

    @property
    def outputs(self) -> tuple[Binding, ...]:
        """The output bindings, ``$return`` among them."""
        return tuple(b for b in self.bindings if b.is_output)

    @property
    def durable_name(self) -> str:
        """The name by which orchestrations call this orchestrator, activity or entity."""
        return self.trigger.text(DURABLE_NAME_KEYS[self.trigger.type]) or self.name

    def not_served(self) -> str | None:
        """Why this host cannot run the function, or None where it can."""
        if self.trigger.type not in SERVED_TRIGGERS:
            return f"its trigger {self.trigger.type} is not served by this host"
        for binding in self.inputs:
            if binding.type not in SERVED_INPUTS:
                return f"its input binding {binding.type} is not served by this host"
        for binding in self.outputs:
            if binding.type not in SERVED_OUTPUTS:
                return f"its output binding {binding.type} is not served by this host"
        return None


def parse_function(name: str, bindings: Iterable[dict[str, Any]], retry: Any) -> Function:
    """Build a Function from the binding dictionaries that azure-functions gives.

    Raises:
        ValueError: None of the bindings is a trigger.
    """
    parsed = tuple(
        Binding(
            name=str(raw["name"]),
            type=str(raw["type"]),
            is_output=raw["direction"] == "OUT",
            options=raw,
        )
        for raw in bindings
    )
    triggers = [binding for binding in parsed if binding.type.lower().endswith("trigger")]
    if not triggers:
        raise ValueError(f"function {name} has no trigger")
    return Function(name=name, trigger=triggers[0], bindings=parsed, retry=retry)


def of_trigger(functions: Iterable[Function], trigger_type: str) -> list[Function]:
    """The functions with that trigger type, in the app's order."""
    return [function for function in functions if function.trigger.type == trigger_type]
