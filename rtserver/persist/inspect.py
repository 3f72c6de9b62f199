"""Looking at a directory without changing it: check everything, dump records, verify snapshots.

Also works beside a running server: then what that server still writes to is left out. `check`
reads every byte, of snapshots and segments that recovery would not need too, and ends with a
recovery whose state is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack

from rtserver.persist.archive import all_segments, read_segment
from rtserver.persist.blocks import (
    SEGMENT_HEADER,
    BadBlock,
    read_segment_header,
    salt_seed,
    used_length,
    valid_blocks,
)
from rtserver.persist.compaction import State, load_snapshot
from rtserver.persist.directory import QUARANTINE
from rtserver.persist.errors import LogDamaged
from rtserver.persist.files import Files
from rtserver.persist.manifest import Manifest, SnapshotEntry, read_manifest
from rtserver.persist.recovery import one_by_one, recover
from rtserver.persist.segments import first_damage
from rtserver.persist.snapshot import read_snapshot, verify_file

__all__ = ["check", "dump", "list_snapshots", "verify_snapshots"]


def check(directory: Path, files: Files) -> dict[str, Any]:
    """{ok, problems: [{file, offset, reason, advice}] with the first of each file, reports,
    torn, ...}; raises OSError."""
    return examine(directory, files, running=files.is_locked(directory))


def examine(directory: Path, files: Files, *, running: bool) -> dict[str, Any]:
    """What `check` returns; `running`: another process writes to the directory."""
    problems: list[LogDamaged] = []
    report: dict[str, Any] = {"ok": True, "running": running, "problems": []}
    try:
        manifest = read_manifest(directory, files)
        if manifest is not None:
            problems += _check_snapshots(directory, files, manifest)
            problems += _check_segments(directory, files, manifest)
        recovered = recover(
            directory,
            files,
            apply_block=one_by_one(_ignore),
            load_chunk=_ignore,
            sealed_only=running,
        )
    except LogDamaged as problem:
        problems.append(problem)
    else:
        report |= {
            "segments": [one.name for one in recovered.manifest.segments],
            "snapshots": [one.name for one in recovered.manifest.snapshots],
            "seq": recovered.seq,
            "blocks": recovered.blocks,
            "records": recovered.records,
            "clean": recovered.clean,
            "torn": [
                {"file": one.file, "offset": one.offset, "bytes": one.size, "reason": one.reason}
                for one in recovered.torn
            ],
            "reports": recovered.reports,
        }
    first = {one.file: one for one in reversed(problems)}
    report["problems"] = [_row(first[name]) for name in sorted(first)]
    report["ok"] = not problems
    report["quarantine"] = files.list_dir(directory / QUARANTINE)
    return report


def _ignore(*_: Any) -> None:
    pass


def _row(problem: LogDamaged) -> dict[str, Any]:
    return {
        "file": problem.file,
        "offset": problem.offset,
        "reason": problem.reason,
        "advice": problem.advice,
    }


def _check_snapshots(directory: Path, files: Files, manifest: Manifest) -> Iterator[LogDamaged]:
    for entry in manifest.snapshots:
        problem = snapshot_problem(directory, files, manifest, entry)
        if problem is not None:
            yield problem


def snapshot_problem(
    directory: Path, files: Files, manifest: Manifest, entry: SnapshotEntry
) -> LogDamaged | None:
    """What is wrong with a listed snapshot, at its place in the file if that can be told."""
    reason = verify_file(directory, files, entry)
    if reason is None:
        return None
    offset = 0
    if files.stat(directory / entry.name) is not None:
        try:
            store_id = bytes.fromhex(manifest.store_id)
            for _ in read_snapshot(directory / entry.name, files, store_id):
                pass
        except BadBlock as bad:
            offset, reason = bad.offset, bad.reason
    return LogDamaged(entry.name, offset, reason)


def _check_segments(directory: Path, files: Files, manifest: Manifest) -> Iterator[LogDamaged]:
    """Every sealed segment by itself, also those that the newest snapshot covers."""
    for entry in manifest.segments:
        try:
            bad = first_damage(directory, files, manifest, entry)
        except LogDamaged as problem:
            yield problem
        else:
            if bad is not None:
                yield LogDamaged(entry.name, bad.offset, bad.reason)


# --- records ---


def dump(directory: Path, files: Files, from_seq: int = 1) -> Iterator[dict[str, Any]]:
    """Every record that can be read, archived ones first: {seq, file, offset, now_ms, record}.

    Where something is damaged or missing there is a row {file, offset, problem} instead.
    """
    seq = None
    for path in all_segments(directory, files).values():
        data = memoryview(read_segment(directory, files, path.name))
        try:
            header = read_segment_header(data)
        except BadBlock as bad:
            yield {"file": path.name, "offset": 0, "problem": bad.reason}
            continue
        expected = SEGMENT_HEADER.size
        for block in valid_blocks(data, expected, salt_seed(header.salt)):
            if block.offset != expected:
                yield {"file": path.name, "offset": expected, "problem": "no valid block here"}
            if seq is not None and block.first_seq != seq + 1:
                problem = f"after record {seq} comes {block.first_seq}"
                yield {"file": path.name, "offset": block.offset, "problem": problem}
            seq, expected = block.last_seq, block.end
            if seq < from_seq:
                continue
            unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=len(data))
            unpacker.feed(data[block.start : block.end])
            for at, record in enumerate(unpacker, block.first_seq):
                if at >= from_seq:
                    yield {
                        "seq": at,
                        "file": path.name,
                        "offset": block.offset,
                        "now_ms": block.now_ms,
                        "record": record,
                    }
        if used_length(data, expected) != expected:
            yield {"file": path.name, "offset": expected, "problem": "no valid block here"}


# --- snapshots ---


def list_snapshots(directory: Path, files: Files) -> Iterator[dict[str, Any]]:
    """{name, seq, size, created_ms, now_ms} of each, oldest first. Raises LogDamaged."""
    manifest = read_manifest(directory, files)
    for entry in manifest.snapshots if manifest is not None else ():
        yield {
            "name": entry.name,
            "seq": entry.seq,
            "size": entry.size,
            "created_ms": entry.created_ms,
            "now_ms": entry.now_ms,
        }


def verify_snapshots(
    directory: Path, files: Files, make_state: Callable[[], State]
) -> dict[str, Any]:
    """Loads each into an empty state, whose totals must be those it was made with; {ok,
    snapshots: [{name, seq, problem}]}. Raises LogDamaged for the manifest, OSError."""
    manifest = read_manifest(directory, files)
    rows = []
    for entry in manifest.snapshots if manifest is not None else ():
        problem = snapshot_problem(directory, files, manifest, entry) if manifest else None
        reason = problem.reason if problem is not None else None
        if manifest is not None and reason is None:
            state = make_state()
            store_id = bytes.fromhex(manifest.store_id)
            meta = load_snapshot(directory / entry.name, files, store_id, state)
            if state.totals() != meta.totals:
                reason = f"loaded it gives {state.totals()}, expected {meta.totals}"
        rows.append({"name": entry.name, "seq": entry.seq, "problem": reason})
    return {"ok": all(row["problem"] is None for row in rows), "snapshots": rows}
