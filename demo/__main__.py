"""``make demo``: send a study in as a scanner would, and show what was found.

Without a path two studies are generated, one with a mass and its clean twin.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

from demo.picture import save_sheet
from demo.scanner import NothingToSend, Object, find, send
from demo.stack import ROOT, Stack, StackError
from slicewatch import inventory, settings
from slicewatch.records import Review, StudyStatus
from slicewatch.review import describe
from slicewatch.storage import INCOMING, Storage
from training.phantom import generate_study

_SEED = 2024
_TIMEOUT_S = 900.0
_RESULTS = ROOT / "runs" / "demo"


class DemoFailed(Exception):
    """The demo did not show what it is to show; the text says what."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("study", nargs="?", type=Path, help="a DICOM file, or a folder of them")
    parser.add_argument("--keep", action="store_true", help="go on serving until interrupted")
    options = parser.parse_args(arguments)
    logging.getLogger("azure").setLevel(logging.WARNING)
    try:
        with contextlib.ExitStack() as stack:
            studies = stack.enter_context(_studies(options.study))
            _run(studies, generated=options.study is None, keep=options.keep)
    except (NothingToSend, StackError, DemoFailed, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


@contextlib.contextmanager
def _studies(path: Path | None) -> Iterator[list[list[Object]]]:
    """The studies to send: those at the path, or generated ones in a folder of their own."""
    if path is not None:
        yield list(find(path).values())
        return
    with tempfile.TemporaryDirectory(prefix="slicewatch-demo-") as folder:
        for name, lesions in (("with-a-mass", True), ("clean-twin", False)):
            generate_study(Path(folder, name), seed=_SEED, lesions=lesions)
        yield [
            objects
            for name in ("with-a-mass", "clean-twin")
            for objects in find(Path(folder, name)).values()
        ]


def _run(studies: list[list[Object]], *, generated: bool, keep: bool) -> None:
    shutil.rmtree(_RESULTS, ignore_errors=True)
    _RESULTS.mkdir(parents=True)
    print("Starting the storage emulator and the Functions host …", flush=True)
    with Stack(log=_RESULTS / "host.log") as stack:
        storage = Storage(settings.load({"SLICEWATCH_STORAGE": stack.azurite.connection_string}))
        reviews = []
        with httpx.Client(base_url=stack.url, timeout=120) as client:
            for objects in studies:
                _send(client, objects)
                reviews.append(_await_review(client, storage, objects[0].study))
            for review in reviews:
                _show(review, storage)
            _show_worklist(client, stack.url)
        if generated:
            _check([review.status for review in reviews])
        print(f"\nReviews, pictures and the host's log: {_RESULTS.relative_to(ROOT)}/")
        if keep:
            print(f"Serving at {stack.url} until Ctrl+C.", flush=True)
            assert stack.host is not None
            stack.host.wait()
        else:
            print("`make start` serves until interrupted.")


def _send(client: httpx.Client, objects: Sequence[Object]) -> None:
    def told(sent: int) -> None:
        _progress(f"  sent {sent} of {len(objects)} objects")

    print(f"\nSending {len(objects)} objects of study {objects[0].study}", flush=True)
    started = time.monotonic()
    refused = send(client, objects, told)
    _progress(f"  sent {len(objects)} objects in {time.monotonic() - started:.1f} s\n")
    if refused:
        print(f"  {len(refused)} of them were refused; the reasons are in host.log")


def _await_review(client: httpx.Client, storage: Storage, study: str) -> Review:
    """Follow the study until its review is out. Raises `DemoFailed`."""
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        answer = client.get(f"/api/studies/{study}")
        answer.raise_for_status()
        status = answer.json()
        progress = status.get("progress") or {}
        _progress(
            f"  {status.get('status', '')}: received {progress.get('received', 0)}, "
            f"screened {progress.get('screened', 0)}, "
            f"with detections {progress.get('with_detections', 0)}"
        )
        if status.get("status") == StudyStatus.FAILED:
            raise DemoFailed(f"the review failed; see {_RESULTS / 'host.log'}")
        review = inventory.latest_review(storage, study) if progress.get("published") else None
        if review is not None:
            _progress("")
            return review
        time.sleep(0.25)
    raise DemoFailed(f"no review within {_TIMEOUT_S:.0f} s; see {_RESULTS / 'host.log'}")


def _show(review: Review, storage: Storage) -> None:
    print("\n" + describe(review).rstrip())
    folder = _RESULTS / review.study_instance_uid
    folder.mkdir()
    name = f"{review.study_instance_uid}/{review.generation}/review.json"
    (folder / "review.json").write_bytes(storage.read("reviews", name))
    if save_sheet(review, lambda blob: storage.read(INCOMING, blob), folder / "findings.png"):
        print(f"Picture: {(folder / 'findings.png').relative_to(ROOT)}")


def _show_worklist(client: httpx.Client, url: str) -> None:
    items = client.get("/api/worklist").raise_for_status().json()["items"]
    print(f"\nWorklist ({url}/api/worklist): {len(items)} to be read")
    for item in items:
        print(f"  {item['urgency']:3}  {item['lane']:8}  {item['state']:7}  {item['summary']}")


def _check(statuses: Sequence[StudyStatus]) -> None:
    """The generated studies differ in the mass alone: the first is flagged, the second is not."""
    if tuple(statuses) != (StudyStatus.FLAGGED, StudyStatus.NOT_FLAGGED):
        raise DemoFailed(
            f"the study with a mass is {statuses[0]}, its clean twin {statuses[1]}; "
            "expected flagged and not_flagged"
        )


def _progress(text: str) -> None:
    """A line that the next one replaces on a terminal; elsewhere only finished ones are shown."""
    if sys.stdout.isatty():
        print(f"\r\x1b[K{text}", end="", flush=True)
    elif text.endswith("\n"):
        print(text, end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
