"""The ceiling: ONNX Runtime alone on arrays that are prepared already."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demo.scanner import Object
from slicewatch import dicom
from slicewatch.model_registry import Model, Registry
from slicewatch.pixels import letterbox, to_gray, to_tensor

_BATCHES = (1, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class Setting:
    """How the network is run: `callers` threads, each with inference calls of `threads`."""

    callers: int
    threads: int
    spinning: bool
    batch: int

    def __str__(self) -> str:
        waiting = "spinning" if self.spinning else "sleeping"
        return (
            f"{self.callers} callers x {self.threads} threads ({waiting}), batches of {self.batch}"
        )


@dataclass(frozen=True, slots=True)
class Rate:
    """Slices a second, and processor time a slice in milliseconds: what other programs on the
    machine do changes the first far more than the second.
    """

    slices_per_s: float
    cpu_ms: float


class Ceiling:
    """Runs one model on prepared slices."""

    def __init__(self, model: Model, tensor: NDArray[np.float32], cores: int) -> None:
        """`tensor` is (n, 3, size, size), at least as long as the largest batch."""
        self._weights = model.weights.read_bytes()
        self._tensor = tensor
        self._cores = cores
        self._sessions: dict[tuple[int, bool], Any] = {}

    def best(self, seconds: float) -> Setting:
        """The fastest setting, each tried for `seconds`."""
        one_call = [Setting(1, self._cores, spinning, b) for spinning in (True, False)
                    for b in _BATCHES]  # fmt: skip
        many_calls = [Setting(self._cores, 1, False, batch) for batch in _BATCHES]
        return max(
            one_call + many_calls,
            key=lambda setting: self.measure(setting, seconds).slices_per_s,
        )

    def measure(self, setting: Setting, seconds: float) -> Rate:
        """Run for `seconds`."""
        session = self._session(setting.threads, setting.spinning)
        name = session.get_inputs()[0].name
        starts = range(0, len(self._tensor) - setting.batch + 1, setting.batch)
        chunks = [self._tensor[start : start + setting.batch] for start in starts]
        done = [0] * setting.callers
        session.run(None, {name: chunks[0]})
        began, cpu = time.perf_counter(), time.process_time()

        def call(caller: int) -> None:
            turn = caller
            while time.perf_counter() - began < seconds:
                session.run(None, {name: chunks[turn % len(chunks)]})
                done[caller] += setting.batch
                turn += setting.callers

        threads = [threading.Thread(target=call, args=(n,)) for n in range(setting.callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed, used = time.perf_counter() - began, time.process_time() - cpu
        return Rate(sum(done) / elapsed, 1000 * used / sum(done))

    def _session(self, threads: int, spinning: bool) -> Any:
        if (threads, spinning) not in self._sessions:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
            options.log_severity_level = 3
            options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
            self._sessions[threads, spinning] = onnxruntime.InferenceSession(
                self._weights, options, providers=["CPUExecutionProvider"]
            )
        return self._sessions[threads, spinning]


def prepare(objects: Sequence[Object], registry: Registry) -> tuple[Model, NDArray[np.float32]]:
    """The model that covers the slices, and the slices as its input.

    Raises:
        ValueError: no model covers them.
    """
    pictures, model = [], None
    for one in objects:
        instance = dicom.read(one.path.read_bytes())
        choice = registry.choose(instance.header.attributes)
        if choice is None:
            raise ValueError(
                "no model of the registry covers generated CT slices; name a folder with one: "
                "--models DIR"
            )
        model = choice.model
        for frame in instance.frames():
            gray = to_gray(frame.values, choice.intensity, frame.voi)
            pictures.append(letterbox(gray, model.input_size)[0])
    assert model is not None
    return model, to_tensor(pictures)
