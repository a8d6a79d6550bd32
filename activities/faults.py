"""Which faults of an activity are worth another try.

A retry policy tries again whatever raises. So an activity raises transient faults alone; any
other fault is an answer, `Fault`, which ends the orchestration as failed at once.
"""

from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import Callable
from typing import Any

from slicewatch.messages import Fault
from slicewatch.storage import Conflict, StorageUnavailable

TRANSIENT = (StorageUnavailable, Conflict, OSError, MemoryError)
_log = logging.getLogger(__name__)


def only_transient_faults_raise(activity: Callable[..., dict[str, Any]]) -> Callable[..., Any]:
    """Make an activity answer a `Fault` for what another try would not cure."""

    @functools.wraps(activity)
    def guarded(*args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            return activity(*args, **kwargs)
        except TRANSIENT:
            raise
        except Exception as error:
            # Where, and not the message: it may repeat what a study's objects say.
            frames = traceback.extract_tb(error.__traceback__)[-4:]
            where = " < ".join(f"{one.name}:{one.lineno}" for one in reversed(frames))
            _log.error("%s fails for good: %s at %s", activity.__name__, _named(error), where)
            return Fault(type(error).__name__, activity.__name__).to_json()

    return guarded


def _named(error: Exception) -> str:
    """The error; with its text where that is about the app's own files."""
    from slicewatch.model_registry import ModelError

    own = isinstance(error, ModelError)
    return f"{type(error).__name__}: {error}" if own else type(error).__name__
