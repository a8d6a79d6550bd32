"""Ultralytics' detection trainer, fitted to slices and to a CPU.

For slices: their appearance changes (`training.appearance`). For a CPU: bfloat16 forward pass,
validation now and then.

Ultralytics' ``amp`` flag is for CUDA alone. On a CPU with AVX-512 or AMX bfloat16 units the same
mixed precision nearly halves a step, as long as the loss stays in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from ultralytics.engine import trainer as engine
from ultralytics.models.yolo.detect import DetectionTrainer

from training.appearance import change_appearance


class Float32Criterion:
    """The model's criterion, fed float32 outside of autocast: boxes in bfloat16 are too coarse."""

    def __init__(self, criterion: Any) -> None:
        self.criterion = criterion

    def __call__(self, predictions: Any, batch: dict[str, Any]) -> Any:
        with torch.autocast("cpu", enabled=False):
            return self.criterion(_to_float32(predictions), batch)

    def update(self) -> None:
        """Advance the schedule between the one-to-many and one-to-one heads."""
        self.criterion.update()


def _to_float32(value: Any) -> Any:
    match value:
        case torch.Tensor():
            return value.float()
        case dict():
            return {key: _to_float32(item) for key, item in value.items()}
        case list() | tuple():
            return type(value)(_to_float32(item) for item in value)
        case _:
            return value


@contextmanager
def _cpu_autocast() -> Iterator[None]:
    """Let the training loop's own autocast block run in bfloat16 on the CPU."""
    original = engine.autocast
    engine.autocast = lambda *_, **__: torch.autocast("cpu", torch.bfloat16)
    try:
        yield
    finally:
        engine.autocast = original


class SliceTrainer(DetectionTrainer):  # type: ignore[misc]
    """Detection trainer that shows each slice as other scanners might have made it.

    Attributes:
        appearance: whether it does.
    """

    appearance = True
    _generator: torch.Generator | None = None

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Ultralytics' own step (pictures to [0, 1]), then other gray values."""
        batch = super().preprocess_batch(batch)
        if self.appearance:
            if self._generator is None:
                # A resumed run draws other numbers than the epochs before it, not the same again.
                self._generator = torch.Generator().manual_seed(self.args.seed + self.start_epoch)
            batch["img"] = change_appearance(batch["img"], self._generator)
        return batch


class CpuTrainer(SliceTrainer):
    """Slice trainer with bfloat16 autocast on the CPU.

    Attributes:
        validate_every: validate each that many epochs, and always after the last one.
        threads: torch's threads; ``None`` leaves Ultralytics' choice.
    """

    validate_every = 5
    threads: int | None = None

    def _do_train(self) -> None:
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        with _cpu_autocast():
            super()._do_train()

    def _model_train(self) -> None:
        super()._model_train()
        self.args.val = (self.epoch + 1) % self.validate_every == 0
        # On the first epoch, and after a resume, which builds a criterion of its own.
        criterion = getattr(self.model, "criterion", None)
        if not isinstance(criterion, Float32Criterion):
            self.model.criterion = Float32Criterion(criterion or self.model.init_criterion())
