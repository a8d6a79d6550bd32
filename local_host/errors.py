"""The errors that end a start of the host, and those that a lost worker causes."""


class HostError(Exception):
    """The host cannot start or go on; the text names the cause and the remedy."""


class WorkerLostError(Exception):
    """The worker process that ran an invocation ended before it answered."""


class InvocationTimeoutError(Exception):
    """An invocation took longer than host.json's ``functionTimeout``."""
