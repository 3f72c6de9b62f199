"""Compaction: the previous snapshot and the closed segments become the next snapshot.

Runs in a process of its own, beside the server: it reads only what the server no longer touches,
and writes one new file that the server lists once it has heard of it. It is a recovery by the
same code, and it ends with loading what it wrote into an empty state whose totals must agree:
each snapshot proves that the data can be recovered. Needs memory for the state once. Only one at a
time works on a directory: two would write the same file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from rtserver.clock import wall_ms
from rtserver.persist.blocks import BadBlock
from rtserver.persist.errors import LogDamaged
from rtserver.persist.files import Files
from rtserver.persist.recovery import Recovered, recover
from rtserver.persist.snapshot import SnapshotMeta, read_snapshot, write_snapshot

__all__ = ["State", "compact", "load_snapshot"]


class State(Protocol):
    """What is snapshotted; `dump` gives the values that `load_chunk` of an empty one takes."""

    def apply_block(self, records: memoryview, first_seq: int, now_ms: int, /) -> int: ...

    def load_chunk(self, chunk: Any, /) -> object: ...

    def dump(self) -> Iterable[Any]: ...

    def totals(self) -> Any: ...


def compact(directory: Path, files: Files, make_state: Callable[[], State]) -> dict[str, Any]:
    """Makes the snapshot of all closed segments. Raises DirectoryLocked, LogDamaged, OSError, and
    what the state raises; then no file is left behind.

    Returns {created, name, seq, size, ...} for `Log.register_snapshot`; `created` is False when
    the newest snapshot already covers every closed segment (name None: there is none).
    """
    lock = files.lock_compaction(directory)
    try:
        return _compact(directory, files, make_state)
    finally:
        lock.release()


def _compact(directory: Path, files: Files, make_state: Callable[[], State]) -> dict[str, Any]:
    state = make_state()
    recovered = recover(
        directory,
        files,
        apply_block=state.apply_block,
        load_chunk=state.load_chunk,
        sealed_only=True,
    )
    manifest = recovered.manifest
    if recovered.seq == 0:
        return {"created": False, "name": None, "seq": 0, "size": 0}
    for entry in manifest.snapshots:
        if entry.name == recovered.snapshot and entry.seq == recovered.seq:
            return {"created": False, **asdict(entry)}
    store_id = bytes.fromhex(manifest.store_id)
    meta = _meta(recovered, state.totals())
    path, entry = write_snapshot(directory, files, store_id, meta, state.dump())
    del state  # its memory is for the one that is loaded now
    try:
        _rehearse(path, files, store_id, meta, make_state())
        files.rename(path, directory / entry.name)
    except BaseException:
        files.remove(path)
        raise
    files.sync_names(directory)
    return {"created": True, "damaged": recovered.bad_snapshots, **asdict(entry)}


def _meta(recovered: Recovered, totals: Any) -> SnapshotMeta:
    sealed = [one.index for one in recovered.manifest.segments if one.sealed is not None]
    return SnapshotMeta(
        seq=recovered.seq,
        segment=sealed[-1] + 1,
        last_crc=recovered.last_crc,
        now_ms=recovered.now_ms,
        boot_ms=recovered.boot_ms,
        created_ms=wall_ms(),
        totals=totals,
    )


def _rehearse(path: Path, files: Files, store_id: bytes, meta: SnapshotMeta, state: State) -> None:
    load_snapshot(path, files, store_id, state)
    if state.totals() != meta.totals:
        reason = f"loaded back it gives {state.totals()}, expected {meta.totals}"
        raise LogDamaged(path.name, 0, reason, "no snapshot was made; please report this")


def load_snapshot(path: Path, files: Files, store_id: bytes, state: State) -> SnapshotMeta:
    """Loads a snapshot file into an empty state. Raises LogDamaged, and what the state raises."""
    chunks = read_snapshot(path, files, store_id)
    try:
        meta: SnapshotMeta = next(chunks)[0]
        for chunk, _ in chunks:
            state.load_chunk(chunk)
    except BadBlock as bad:
        raise LogDamaged(path.name, bad.offset, bad.reason) from None
    return meta
