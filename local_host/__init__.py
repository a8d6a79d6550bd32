"""A Functions host for machines without Core Tools.

``python -m local_host start`` serves any Durable Functions 2.x app that is written in the v2
programming model. See docs/local-host.md for what it does and how it differs from Core Tools.
"""
