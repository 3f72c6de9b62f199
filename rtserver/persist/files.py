"""The operating system's files: the only place of the project that writes, syncs or renames them.

Each system call is one method, so a test can make the n-th call fail, end short, or be the last.
Files are 0600, directories 0700. Nothing here retries: a caller that may go on after a failure
says so itself, and nobody may after a failed sync (the kernel may have dropped the pages).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
from pathlib import Path
from typing import NamedTuple

from rtserver.persist import boot
from rtserver.persist.errors import DirectoryLocked, LogFailed

__all__ = ["DirectoryLock", "FileStat", "Files"]

LOCK_NAME = "LOCK"

_ZEROS = bytes(1024 * 1024)
_NO_ALLOCATE = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS})


class FileStat(NamedTuple):
    size: int
    modified_ms: int


class Files:
    """Every call raises OSError as the system gave it."""

    # --- system calls ---

    def create(self, path: Path) -> int:
        """A new file, open for reading and writing; FileExistsError when there is one."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def open_existing(self, path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def open_read(self, path: Path) -> int:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self, fd: int) -> None:
        os.close(fd)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        """The number of bytes written, which may be fewer than there are."""
        return os.pwrite(fd, data, offset)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return os.pread(fd, size, offset)

    def fdatasync(self, fd: int) -> None:
        """The file's bytes are on stable storage when this returns."""
        if sys.platform == "darwin":
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync there stops at the drive's cache
        else:
            os.fdatasync(fd)

    def fsync(self, fd: int) -> None:
        """As fdatasync, and the file's length as well."""
        if sys.platform == "darwin":
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        else:
            os.fsync(fd)

    def fsync_dir(self, path: Path) -> None:
        """The names in a directory are on stable storage when this returns."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def allocate(self, fd: int, size: int) -> None:
        """Gives a new file `size` zero bytes whose space on the disk is taken now."""
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(fd, 0, size)
                return
            except OSError as error:
                if error.errno not in _NO_ALLOCATE:
                    raise
        for offset in range(0, size, len(_ZEROS)):
            self.write_all(fd, _ZEROS[: size - offset], offset)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def rename(self, old: Path, new: Path) -> None:
        os.replace(old, new)

    def remove(self, path: Path) -> None:
        os.unlink(path)

    def make_dir(self, path: Path) -> None:
        """The directory and its parents, unless they are there; their names are synced."""
        missing = [one for one in (path, *path.parents) if not one.exists()]
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for one in missing:
            self.fsync_dir(one.parent)

    def list_dir(self, path: Path) -> list[str]:
        """The names in a directory, sorted; none when there is no such directory."""
        try:
            return sorted(os.listdir(path))
        except FileNotFoundError:
            return []

    def stat(self, path: Path) -> FileStat | None:
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return None
        return FileStat(found.st_size, found.st_mtime_ns // 1_000_000)

    def boot_id(self) -> bytes:
        return boot.boot_id()

    def boot_ms(self) -> int:
        return boot.boot_ms()

    # --- made of these ---

    def read_file(self, path: Path) -> bytes:
        fd = self.open_read(path)
        try:
            found = self.stat(path)
            size = found.size if found is not None else 0
            pieces = [self.pread(fd, size, 0)]
            done = len(pieces[0])
            while pieces[-1]:  # one call reads at most 2 GiB, and a signal may shorten it
                pieces.append(self.pread(fd, max(size - done, 1), done))
                done += len(pieces[-1])
        finally:
            self.close(fd)
        return b"".join(pieces) if len(pieces) > 2 else pieces[0]

    def write_all(self, fd: int, data: bytes, offset: int) -> None:
        """Writes everything or raises."""
        view = memoryview(data)
        while view:
            written = self.pwrite(fd, view, offset)
            if written <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            view = view[written:]
            offset += written

    def write_atomically(self, path: Path, data: bytes) -> None:
        """The file holds `data` or what it held before, whenever the power fails.

        Raises OSError when it still holds what it held; LogFailed when that is not known.
        """
        temporary = path.with_name(path.name + ".tmp")
        with contextlib.suppress(FileNotFoundError):
            self.remove(temporary)
        fd = self.create(temporary)
        try:
            self.write_all(fd, data, 0)
            self.fsync(fd)
        finally:
            self.close(fd)
        self.rename(temporary, path)
        self.sync_names(path.parent)

    def sync_names(self, path: Path) -> None:
        """fsync_dir that nobody may retry. Raises LogFailed: no one knows now which names last."""
        try:
            self.fsync_dir(path)
        except OSError as error:
            raise LogFailed(f"the directory {path} cannot be synced: {error}") from error

    def sync_file(self, fd: int, path: Path) -> None:
        """fsync that nobody may retry. Raises LogFailed."""
        try:
            self.fsync(fd)
        except OSError as error:
            raise LogFailed(f"{path} cannot be synced: {error}") from error

    # --- one process a directory ---

    def lock(self, directory: Path) -> DirectoryLock:
        """Takes the directory (made if need be) for this process. Raises DirectoryLocked."""
        self.make_dir(directory)
        path = directory / LOCK_NAME
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(fd, 1_000, 0).decode("utf-8", "replace").split()
            os.close(fd)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            names = ("process", "listening on")
            who = ", ".join(f"{name} {word}" for name, word in zip(names, holder, strict=False))
            raise DirectoryLocked(
                f"{directory} is in use by another rtserver ({who or 'it is just starting'});"
                " stop it first or use another data directory"
            ) from None
        lock = DirectoryLock(fd)
        lock.describe("")
        return lock

    def lock_compaction(self, directory: Path) -> DirectoryLock:
        """Makes this process the only one that makes a snapshot here; another may be the child of a
        server that is gone. Raises DirectoryLocked."""
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise DirectoryLocked(
                f"another process makes a snapshot of {directory}: try again when it is done"
            ) from None
        return DirectoryLock(fd)

    def is_locked(self, directory: Path) -> bool:
        """Whether a process, this one included, holds the directory's lock."""
        return self._holder(directory) is not None

    def lock_holder(self, directory: Path) -> str | None:
        """The address that the server on a directory listens on; None when none does."""
        words = self._holder(directory) or []
        return words[1] if len(words) > 1 else None

    def _holder(self, directory: Path) -> list[str] | None:
        """The words in a lock file that is locked."""
        try:
            fd = os.open(directory / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.pread(fd, 1_000, 0).decode("utf-8", "replace").split()
        finally:
            os.close(fd)
        return None


class DirectoryLock:
    """A flock(2) that ends with the process, however it ends."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def describe(self, address: str) -> None:
        """Tells whoever finds the directory locked which process listens where."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()} {address}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._fd)
