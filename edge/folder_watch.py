"""A watched folder: what appears in it is taken like what a scanner sends.

A file is taken once its size and time stood still, and removed when it is safe in the spool. One
that is no sound DICOM object goes to ``rejected/`` beside a ``.txt`` that says why. Names that
begin with a dot, or end in ``.part`` or ``.tmp``, are still being written.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from edge.config import Folder
from edge.intake import Intake
from edge.spool import DiskFull, Spool
from edge.study_watch import StudyWatch
from slicewatch.limits import Rejected

_log = logging.getLogger(__name__)

_UNFINISHED = (".part", ".tmp")
_REJECTED = "rejected"

type _Seen = tuple[int, int, float]
"""Size, modification time (ns), and when it was first seen like this (monotonic seconds)."""


class FolderWatch:
    """Looks every `poll_s` from `start` to `stop`.

    Args:
        clock: seconds, never going back.
    """

    def __init__(
        self,
        config: Folder,
        spool: Spool,
        intake: Intake,
        watch: StudyWatch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._spool = spool
        self._intake = intake
        self._watch = watch
        self._clock = clock
        self._seen: dict[Path, _Seen] = {}
        self._stuck: dict[Path, tuple[int, int]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="folder", daemon=True)

    def start(self) -> None:
        self._config.path.mkdir(parents=True, exist_ok=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.wait(self._config.poll_s):
            self.look()

    def look(self) -> int:
        """Take what is finished; returns how many objects were taken."""
        taken = 0
        present: dict[Path, _Seen] = {}
        for path in self._files():
            try:
                stat = path.stat()
            except OSError:
                continue  # gone meanwhile
            size, modified = stat.st_size, stat.st_mtime_ns
            before = self._seen.get(path)
            still = before is not None and before[:2] == (size, modified)
            present[path] = before if still and before else (size, modified, self._clock())
            ready = self._clock() - present[path][2] >= self._config.settle_s and (
                still or self._config.settle_s == 0
            )
            if ready and self._stuck.get(path) != (size, modified):
                if not self._take(path, (size, modified)):
                    break
                taken += 1
            if self._stop.is_set():
                break
        self._seen = present
        return taken

    def _files(self) -> list[Path]:
        root = self._config.path
        return [
            path
            for path in sorted(root.rglob("*"))
            if path.is_file()
            and not path.is_symlink()
            and path.relative_to(root).parts[0] != _REJECTED
            and not path.name.startswith(".")
            and not path.name.endswith(_UNFINISHED)
        ]

    def _take(self, path: Path, state: tuple[int, int]) -> bool:
        """Take one file; false when there is no room, and it has to wait."""
        arriving = self._spool.create()
        try:
            self._intake.check_space(state[0])
            shutil.copyfile(path, arriving)
            header = self._intake.take(arriving, source="folder", urgent=self._config.urgent)
        except DiskFull as full:
            _log.error("the folder has to wait: %s", full)
            arriving.unlink(missing_ok=True)
            return False
        except Rejected as rejected:
            self._reject(path, str(rejected))
            return True
        except OSError as error:
            arriving.unlink(missing_ok=True)
            _log.error("a file in the watched folder cannot be read: %s", error.strerror)
            self._stuck[path] = state
            return True
        self._watch.touch(header.study_instance_uid)
        try:
            path.unlink()
        except OSError as error:
            # Taking it again and again would be harmless, and endless.
            _log.error("a file that was taken cannot be removed: %s", error.strerror)
            self._stuck[path] = state
        return True

    def _reject(self, path: Path, reason: str) -> None:
        _log.warning("a file in the watched folder is refused: %s", reason)
        target = self._config.path / _REJECTED / path.name
        number = 0
        while target.exists():
            number += 1
            target = target.with_name(f"{path.stem}~{number}{path.suffix}")
        try:
            target.parent.mkdir(exist_ok=True)
            path.replace(target)
            target.with_name(target.name + ".txt").write_text(reason + "\n", encoding="utf-8")
        except OSError as error:
            _log.error("a refused file cannot be moved: %s", error.strerror)
            self._stuck[path] = (path.stat().st_size, path.stat().st_mtime_ns)
