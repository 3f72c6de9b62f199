"""A disk in memory that can fail, fill up, lose power and kill its process, at any call.

Holds two views: what a process reads (the page cache), and what stable storage holds. A sync of
a file moves its changes to stable storage, a sync of a directory its names. At a power failure
each change since then is kept, lost, or kept in part (by sectors of 512 bytes), in any mixture;
that is more than a real disk does. A failed sync forgets its changes, as Linux does: a second
sync would succeed and save nothing.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

from rtserver.persist.files import DirectoryLock, Files, FileStat

SECTOR = 512


class Crash(BaseException):
    """The process ends here, as by kill -9. Not an Exception: nothing may catch it."""


class _Inode:
    def __init__(self) -> None:
        self.data = bytearray()  # what a process reads
        self.stable = b""
        self.changes: list[tuple[str, int, bytes]] = []  # since the last sync


class Disk:
    """What is left when a process or the machine goes down."""

    def __init__(self) -> None:
        self.names: dict[Path, _Inode] = {}
        self.stable_names: dict[Path, _Inode] = {}
        self.name_changes: list[dict[Path, _Inode | None]] = []  # each is atomic
        self.folders: set[Path] = set()
        self.boot = 1

    def lose_power(self, chance: random.Random, kept: float) -> None:
        """Each unsynced change is kept with that probability (0: none, 1: all), or in part."""
        names = dict(self.stable_names)
        for change in self.name_changes:
            if chance.random() < kept:
                for path, inode in change.items():
                    if inode is None:
                        names.pop(path, None)
                    else:
                        names[path] = inode
        for inode in {id(one): one for one in names.values()}.values():
            inode.data = bytearray(_survivor(inode, chance, kept))
            inode.stable = bytes(inode.data)
            inode.changes.clear()
        self.names, self.stable_names, self.name_changes = names, dict(names), []
        self.boot += 1

    def bytes_of(self, path: Path) -> bytes:
        return bytes(self.names[path].data)

    def put(self, path: Path, data: bytes | None) -> None:
        """Damage: replaces or removes a file in both views."""
        self.names.pop(path, None)
        self.stable_names.pop(path, None)
        if data is not None:
            inode = _Inode()
            inode.data = bytearray(data)
            inode.stable = data
            self.names[path] = self.stable_names[path] = inode

    def copy(self) -> Disk:
        """Another disk with the same content in both views."""
        twins: dict[int, _Inode] = {}

        def twin(inode: _Inode) -> _Inode:
            if id(inode) not in twins:
                other = twins[id(inode)] = _Inode()
                other.data = bytearray(inode.data)
                other.stable = inode.stable
                other.changes = list(inode.changes)
            return twins[id(inode)]

        disk = Disk()
        disk.names = {path: twin(inode) for path, inode in self.names.items()}
        disk.stable_names = {path: twin(inode) for path, inode in self.stable_names.items()}
        disk.name_changes = [
            {path: None if inode is None else twin(inode) for path, inode in change.items()}
            for change in self.name_changes
        ]
        disk.folders = set(self.folders)
        disk.boot = self.boot
        return disk


def _survivor(inode: _Inode, chance: random.Random, kept: float) -> bytes:
    data = bytearray(inode.stable)
    for kind, place, content in inode.changes:
        if kind == "size":
            if chance.random() < kept:
                _resize(data, place)
            continue
        for start in range(0, len(content), SECTOR):
            if chance.random() < kept:
                piece = content[start : start + SECTOR]
                _resize(data, max(len(data), place + start + len(piece)))
                data[place + start : place + start + len(piece)] = piece
    return bytes(data)


def _resize(data: bytearray, size: int) -> None:
    if size < len(data):
        del data[size:]
    else:
        data.extend(bytes(size - len(data)))


Fault = Callable[[], None]


class SimulatedFiles(Files):
    """One process on a disk. `faults` says what happens at the n-th call that changes anything:
    an errno, "short" (half of a write), "crash" (before the call), or "torn" (half, then dead).
    """

    def __init__(self, disk: Disk, faults: dict[int, int | str] | None = None) -> None:
        self.disk = disk
        self.faults = faults or {}
        self.calls: list[str] = []
        self.syncs = 0
        self.dead = False
        self.full = False
        self.boot_clock_ms = 1_000
        self._open: dict[int, tuple[Path, _Inode]] = {}
        self._next_fd = 100

    # --- faults ---

    def _call(self, name: str, path: Path) -> str | None:
        """Counts a call; raises its fault, or returns "short" or "torn"."""
        if self.dead:
            raise Crash
        fault = self.faults.get(len(self.calls))
        self.calls.append(f"{name} {path.name}")
        if fault is None and self.full and name in ("create", "pwrite", "allocate"):
            fault = errno.ENOSPC
        if fault == "crash" or (fault in ("short", "torn") and name != "pwrite"):
            self.dead = fault != "short"
            if self.dead:
                raise Crash
            return None
        if isinstance(fault, int):
            if name in ("fdatasync", "fsync"):
                self._inode(path).changes.clear()
            raise OSError(fault, os.strerror(fault))
        return fault

    def _inode(self, path: Path) -> _Inode:
        try:
            return self.disk.names[path]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path)) from None

    def _changed(self, change: dict[Path, _Inode | None]) -> None:
        self.disk.name_changes.append(change)
        for path, inode in change.items():
            if inode is None:
                del self.disk.names[path]
            else:
                self.disk.names[path] = inode

    def _new_fd(self, path: Path) -> int:
        self._next_fd += 1
        self._open[self._next_fd] = (path, self._inode(path))
        return self._next_fd

    @property
    def open_count(self) -> int:
        return len(self._open)

    # --- files ---

    def create(self, path: Path) -> int:
        self._call("create", path)
        if path in self.disk.names:
            raise FileExistsError(errno.EEXIST, "exists", str(path))
        self._changed({path: _Inode()})
        return self._new_fd(path)

    def open_existing(self, path: Path) -> int:
        return self._new_fd(path)

    def open_read(self, path: Path) -> int:
        return self._new_fd(path)

    def close(self, fd: int) -> None:
        del self._open[fd]

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        path, inode = self._open[fd]
        fault = self._call("pwrite", path)
        piece = bytes(data)[: len(data) // 2] if fault else bytes(data)
        _resize(inode.data, max(len(inode.data), offset + len(piece)))
        inode.data[offset : offset + len(piece)] = piece
        inode.changes.append(("data", offset, piece))
        if fault == "torn":
            self.dead = True
            raise Crash
        return len(piece)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return bytes(self._open[fd][1].data[offset : offset + size])

    def fdatasync(self, fd: int) -> None:
        path, inode = self._open[fd]
        self._call("fdatasync", path)
        self._settle(inode)

    def fsync(self, fd: int) -> None:
        path, inode = self._open[fd]
        self._call("fsync", path)
        self._settle(inode)

    def _settle(self, inode: _Inode) -> None:
        self.syncs += 1
        data = bytearray(inode.stable)
        for kind, place, content in inode.changes:
            _resize(data, place if kind == "size" else max(len(data), place + len(content)))
            if kind == "data":
                data[place : place + len(content)] = content
        inode.stable = bytes(data)
        inode.changes.clear()

    def fsync_dir(self, path: Path) -> None:
        self._call("fsync_dir", path)
        kept = []
        for change in self.disk.name_changes:
            if all(one.parent != path for one in change):
                kept.append(change)
                continue
            for one, inode in change.items():
                if inode is None:
                    self.disk.stable_names.pop(one, None)
                else:
                    self.disk.stable_names[one] = inode
        self.disk.name_changes = kept

    def allocate(self, fd: int, size: int) -> None:
        path, inode = self._open[fd]
        self._call("allocate", path)
        _resize(inode.data, size)
        inode.changes.append(("size", size, b""))

    def truncate(self, fd: int, size: int) -> None:
        path, inode = self._open[fd]
        self._call("truncate", path)
        _resize(inode.data, size)
        inode.changes.append(("size", size, b""))

    # --- names ---

    def rename(self, old: Path, new: Path) -> None:
        self._call("rename", new)
        self._changed({old: None, new: self._inode(old)})

    def remove(self, path: Path) -> None:
        self._inode(path)
        self._call("remove", path)
        self._changed({path: None})

    def make_dir(self, path: Path) -> None:
        self.disk.folders.add(path)

    def list_dir(self, path: Path) -> list[str]:
        return sorted(one.name for one in self.disk.names if one.parent == path)

    def stat(self, path: Path) -> FileStat | None:
        inode = self.disk.names.get(path)
        return None if inode is None else FileStat(len(inode.data), 0)

    # --- process ---

    def boot_id(self) -> bytes:
        return self.disk.boot.to_bytes(16, "big")

    def boot_ms(self) -> int:
        self.boot_clock_ms += 1
        return self.boot_clock_ms

    def lock(self, directory: Path) -> DirectoryLock:
        return _NoLock(-1)

    def lock_compaction(self, directory: Path) -> DirectoryLock:
        return _NoLock(-1)

    def is_locked(self, directory: Path) -> bool:
        return False


class _NoLock(DirectoryLock):
    __slots__ = ()

    def release(self) -> None:
        pass
