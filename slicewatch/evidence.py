"""Evidence bundles: everything of a study that anybody needs to check it later, in one zip file.

::

    originals/{series}/{sop}.dcm     the objects as they were received
    results/…                        slice results, reviews, documents, worklist items
    log.jsonl                        the custody log, up to the entry of this export
    checkpoints/*.json  keys/*.pem   checkpoints of the log, public keys that signed it
    summary.pdf  README.txt          for people
    manifest.json                    hash and size of each file, signed

The zip file is staged as blocks of a blob, by activities that each pack some of the files with
bounded memory; offsets in it are settled when the last one writes its directory. Files are stored,
not compressed: pixels hardly get smaller, and a damaged byte damages one file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from slicewatch import custody, custody_chain, custody_events, custody_record, inventory, worklist
from slicewatch.corrections import of_item
from slicewatch.custody import Log
from slicewatch.evidence_files import (
    CHECKPOINTS,
    FORMAT,
    KEYS,
    LOG,
    MANIFEST,
    ORIGINALS,
    README,
    RESULTS,
    SUMMARY,
    WORKLIST,
)
from slicewatch.evidence_messages import Evidence, EvidencePart, EvidenceParts
from slicewatch.evidence_summary import summary_pdf
from slicewatch.record import Record
from slicewatch.records import DISCLAIMER
from slicewatch.storage import CUSTODY, INCOMING, REVIEWS, Conflict, Storage

_BLOCK_BYTES = 8 << 20
_PART_BYTES = 256 << 20
_PART_FILES = 500
_EPOCH = (1980, 1, 1, 0, 0, 0)  # zip files know no earlier time; the log has the times
_JSON = "application/json"

_README = f"""Evidence bundle of one study, made by Slicewatch; {DISCLAIMER}.

It holds patient data: the original objects are in `originals`.

To check it, offline, with Slicewatch's source and the Python package `cryptography`:

    python -m slicewatch.custody verify BUNDLE.zip --public-key KEY.pem

KEY.pem is the public key as you got it from those who ran the system, not from this bundle: a
bundle that somebody made anew would come with a key of theirs. The check names the first entry of
the log that does not hold, and ends with status 1 when there is one.
"""


@dataclass(frozen=True, slots=True)
class _File(Record):
    """A blob that goes into the bundle as `path`."""

    container: str
    blob: str
    path: str
    size: int


@dataclass(frozen=True, slots=True)
class _Plan(Record):
    """What a bundle is to hold; `parts` are the numbers of files in each part."""

    files: tuple[_File, ...]
    parts: tuple[int, ...]
    checkpoints: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Packed(Record):
    """A file as it is in a part of the zip file; `offset` is from the part's start."""

    path: str
    size: int
    sha256: str
    crc: int
    offset: int


@dataclass(frozen=True, slots=True)
class _Part(Record):
    """A packed part: its blocks, its length in bytes, its files."""

    blocks: tuple[str, ...]
    length: int
    files: tuple[_Packed, ...]


def plan(storage: Storage, log: Log, study: str, export: str) -> EvidenceParts:
    """Settle what the bundle holds, once: asked again, the answer is the same.

    The checkpoints are noted here, before the entry of the export is written: all of them are of
    earlier entries, unless the log was cut.
    """
    name = f"{_folder(study, export)}/plan.json"
    items = [
        {**item.to_json(), "corrections": [one.to_json() for one in of_item(storage, item.id)]}
        for item in worklist.of_study(storage, study)
    ]
    listed = f"{_folder(study, export)}/worklist.json"
    made = _plan(storage, log, study)
    custody_record.found(storage, log, study)
    text = json.dumps(items, indent=1).encode()
    extra = _File(CUSTODY, listed, WORKLIST, len(text))
    made = _Plan((*made.files, extra), (*made.parts, 1), made.checkpoints)
    with contextlib.suppress(Conflict):  # an earlier run of this got this far
        storage.write(CUSTODY, listed, text, content_type=_JSON, if_absent=True)
    try:
        body = json.dumps(made.to_json(), separators=(",", ":")).encode()
        storage.write(CUSTODY, name, body, content_type=_JSON, if_absent=True)
    except Conflict:
        made = _Plan.from_json(json.loads(storage.read(CUSTODY, name)))
    return EvidenceParts(len(made.parts), len(made.files), sum(one.size for one in made.files))


def _plan(storage: Storage, log: Log, study: str) -> _Plan:
    files: list[_File] = []
    for container, folder in ((INCOMING, ORIGINALS), (REVIEWS, RESULTS)):
        for blob in storage.listing(container, f"{study}/"):
            path = folder + blob.name.removeprefix(f"{study}/")
            files.append(_File(container, blob.name, path, blob.size))
    checkpoints = {name: text.decode() for name, text in log.checkpoints(study).items()}
    return _Plan(tuple(files), tuple(_parts(files)), checkpoints)


def _parts(files: Iterable[_File]) -> Iterator[int]:
    count, held = 0, 0
    for file in files:
        if count and (count == _PART_FILES or held + file.size > _PART_BYTES):
            yield count
            count, held = 0, 0
        count, held = count + 1, held + file.size
    if count:
        yield count


def pack(storage: Storage, request: EvidencePart) -> None:
    """Stage one part of the zip file; a later run of the same replaces an earlier one."""
    folder = _folder(request.study, request.export)
    planned = _Plan.from_json(json.loads(storage.read(CUSTODY, f"{folder}/plan.json")))
    start = sum(planned.parts[: request.part])
    sink = _Blocks(storage, f"{folder}.zip")
    with zipfile.ZipFile(sink, "w") as archive:
        packed = [
            _pack(archive, file.path, storage.chunks(file.container, file.blob))
            for file in planned.files[start : start + planned.parts[request.part]]
        ]
        part = _Part(sink.finish(), sink.tell(), tuple(packed))
        # What closing writes now is a directory of this part alone: it is not staged.
    body = json.dumps(part.to_json(), separators=(",", ":")).encode()
    storage.write(CUSTODY, f"{folder}/part-{request.part:05d}.json", body, content_type=_JSON)


def _pack(archive: zipfile.ZipFile, path: str, chunks: Iterable[bytes]) -> _Packed:
    info = zipfile.ZipInfo(path, _EPOCH)
    sha256 = hashlib.sha256()
    with archive.open(info, "w", force_zip64=True) as target:
        for chunk in chunks:
            sha256.update(chunk)
            target.write(chunk)
    return _Packed(path, info.file_size, sha256.hexdigest(), info.CRC, info.header_offset)


def build(storage: Storage, log: Log, study: str, export: str, requester: str) -> Evidence:
    """Log the export, add log, checkpoints, keys, summary and manifest, and make the zip file."""
    folder = _folder(study, export)
    planned = _Plan.from_json(json.loads(storage.read(CUSTODY, f"{folder}/plan.json")))
    parts = [
        _Part.from_json(json.loads(storage.read(CUSTODY, f"{folder}/part-{number:05d}.json")))
        for number in range(len(planned.parts))
    ]
    files = {file.path: file for part in parts for file in part.files}
    hashes = {path: file.sha256 for path, file in files.items()}
    bundle = f"{folder}.zip"
    [mark] = log.append(study, custody_events.exported(bundle, requester, hashes))
    lines = list(log.lines(study))[: mark.sequence + 1]
    small = _small_files(storage, log, study, planned, lines, mark)
    small[SUMMARY] = summary_pdf(
        study, bundle, lines, inventory.latest_review(storage, study), len(files)
    )
    listed = {path: [file.sha256, file.size] for path, file in files.items()}
    listed |= {path: [hashlib.sha256(text).hexdigest(), len(text)] for path, text in small.items()}
    body = {
        "format": FORMAT,
        "study": study,
        "bundle": bundle,
        "made": custody.now(),
        "entries": len(lines),
        "head": mark.hash,
        "files": listed,
    }
    manifest, hashed = custody_chain.state(custody_chain.MANIFEST, body, log.signer)
    small[MANIFEST] = manifest
    blocks = _finish(_Blocks(storage, bundle, sum(part.length for part in parts)), parts, small)
    everything = [block for part in parts for block in part.blocks] + list(blocks)
    storage.commit_blocks(CUSTODY, bundle, everything, content_type="application/zip")
    return Evidence(study, bundle, len(listed), len(lines), mark.hash, hashed, bool(log.signer))


def _small_files(
    storage: Storage,
    log: Log,
    study: str,
    planned: _Plan,
    lines: list[bytes],
    mark: custody.Mark,
) -> dict[str, bytes]:
    last = {f"{mark.sequence:08d}.json": log.checkpoint(study, mark)}
    checkpoints = {name: text.encode() for name, text in planned.checkpoints.items()} | last
    return {
        LOG: b"".join(line + b"\n" for line in lines),
        **{CHECKPOINTS + name: text for name, text in checkpoints.items()},
        **{KEYS + name: text for name, text in log.public_keys().items()},
        README: _README.encode(),
    }


def _finish(sink: _Blocks, parts: Iterable[_Part], small: dict[str, bytes]) -> tuple[str, ...]:
    """Write the last files and the directory of all; the sink starts where the parts end."""
    with zipfile.ZipFile(sink, "w") as archive:
        start = 0
        for part in parts:
            archive.filelist.extend(_entry(file, start) for file in part.files)
            start += part.length
        for path, text in small.items():
            _pack(archive, path, [text])
    return sink.finish()


def _entry(file: _Packed, start: int) -> zipfile.ZipInfo:
    """The directory's entry of a file that is in a part already, as `_pack` wrote it."""
    info = zipfile.ZipInfo(file.path, _EPOCH)
    info.flag_bits |= 0x08  # sizes and CRC follow the data (APPNOTE 4.4.4)
    info.external_attr = 0o600 << 16
    info.file_size = info.compress_size = file.size
    info.CRC = file.crc
    info.header_offset = start + file.offset
    return info


class _Blocks:
    """What `zipfile` writes to: stages blocks of a blob. Their ids are no other run's."""

    def __init__(self, storage: Storage, name: str, start: int = 0) -> None:
        self._storage = storage
        self._name = name
        self._run = uuid.uuid4().hex
        self._position = start
        self._held = bytearray()
        self._staged: list[str] = []

    def write(self, data: bytes) -> int:
        self._held += data
        self._position += len(data)
        while len(self._held) >= _BLOCK_BYTES:
            self._stage(bytes(self._held[:_BLOCK_BYTES]))
            del self._held[:_BLOCK_BYTES]
        return len(data)

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        """`zipfile` asks for it; blocks are staged when they are full, the last by `finish`."""

    def close(self) -> None:
        """The blob is not made here: `Storage.commit_blocks` does."""

    def finish(self) -> tuple[str, ...]:
        """Stage what is left; the ids of all blocks."""
        if self._held:
            self._stage(bytes(self._held))
            self._held.clear()
        return tuple(self._staged)

    def _stage(self, data: bytes) -> None:
        block = f"{self._run}-{len(self._staged):06d}"
        self._storage.stage_block(CUSTODY, self._name, block, data)
        self._staged.append(block)


def _folder(study: str, export: str) -> str:
    return f"exports/{study}/{export}"
