"""The plan: deterministic generators that yield durable tasks and do no I/O.

Each module holds one orchestrator and the blueprint that registers it under its own name. What
they need of settings and time comes with their input and from the orchestration context.
"""
