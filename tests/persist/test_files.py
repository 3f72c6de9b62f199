"""The real file system: permissions, atomic replacement, the lock, the boot."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rtserver.persist import boot
from rtserver.persist.errors import DirectoryLocked, LogFailed
from rtserver.persist.files import Files


@pytest.fixture
def files() -> Files:
    return Files()


def test_nobody_else_may_read(files: Files, tmp_path: Path) -> None:
    os.umask(os.umask(0))
    folder = tmp_path / "new" / "store"
    files.make_dir(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    fd = files.create(folder / "file")
    assert (folder / "file").stat().st_mode & 0o777 == 0o600
    files.close(fd)
    with pytest.raises(FileExistsError):
        files.create(folder / "file")
    files.make_dir(folder)


def test_allocated_space_reads_as_zeros(files: Files, tmp_path: Path) -> None:
    fd = files.create(tmp_path / "file")
    files.allocate(fd, 100_000)
    assert files.stat(tmp_path / "file") is not None
    assert files.read_file(tmp_path / "file") == bytes(100_000)
    assert (tmp_path / "file").stat().st_blocks * 512 >= 100_000
    files.close(fd)


def test_space_is_taken_by_writing_where_it_cannot_be_allocated(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    fd = files.create(tmp_path / "file")
    files.allocate(fd, 2_500_000)
    assert (tmp_path / "file").stat().st_blocks * 512 >= 2_500_000
    files.close(fd)


def test_a_full_disk_is_not_taken_for_missing_support(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    fd = files.create(tmp_path / "file")
    with pytest.raises(OSError, match="full"):
        files.allocate(fd, 100)
    files.close(fd)


def test_a_file_is_replaced_as_a_whole(files: Files, tmp_path: Path) -> None:
    path = tmp_path / "file"
    (tmp_path / "file.tmp").write_bytes(b"left by a crash")
    files.write_atomically(path, b"one")
    files.write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert files.list_dir(tmp_path) == ["file"]


def test_short_writes_are_finished(tmp_path: Path) -> None:
    class Slow(Files):
        def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
            return super().pwrite(fd, bytes(data)[:3], offset)

    Slow().write_atomically(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_long_files_are_read_in_several_calls(tmp_path: Path) -> None:
    class Slow(Files):
        def pread(self, fd: int, size: int, offset: int) -> bytes:
            return super().pread(fd, min(size, 3), offset)

    (tmp_path / "file").write_bytes(b"0123456789")
    assert Slow().read_file(tmp_path / "file") == b"0123456789"


def test_a_failed_sync_of_names_cannot_be_retried(tmp_path: Path) -> None:
    class Broken(Files):
        def fsync_dir(self, path: Path) -> None:
            raise OSError(errno.EIO, "broken")

    with pytest.raises(LogFailed):
        Broken().write_atomically(tmp_path / "file", b"x")


def test_what_is_not_there(files: Files, tmp_path: Path) -> None:
    assert files.stat(tmp_path / "no") is None
    assert files.list_dir(tmp_path / "no") == []
    assert files.lock_holder(tmp_path / "no") is None
    assert not files.is_locked(tmp_path / "no")


def test_one_process_at_a_time_makes_snapshots(files: Files, tmp_path: Path) -> None:
    server = files.lock(tmp_path)
    lock = files.lock_compaction(tmp_path)
    with pytest.raises(DirectoryLocked, match="another process makes a snapshot"):
        files.lock_compaction(tmp_path)
    lock.release()
    files.lock_compaction(tmp_path).release()
    server.release()


def test_a_second_process_is_refused(files: Files, tmp_path: Path) -> None:
    """By its own descriptor, so the same process counts as another."""
    lock = files.lock(tmp_path / "store")
    with pytest.raises(DirectoryLocked, match=f"process {os.getpid()}"):
        files.lock(tmp_path / "store")
    assert files.is_locked(tmp_path / "store")
    assert files.lock_holder(tmp_path / "store") is None, "it does not listen yet"
    lock.describe("127.0.0.1:7370")
    assert files.lock_holder(tmp_path / "store") == "127.0.0.1:7370"
    code = (
        "import sys; from pathlib import Path; from rtserver.persist.files import Files\n"
        "try: Files().lock(Path(sys.argv[1]))\n"
        "except Exception as error: sys.exit(f'{type(error).__name__}: {error}')"
    )
    second = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert second.returncode == 1
    assert "DirectoryLocked" in second.stderr
    assert f"process {os.getpid()}, listening on 127.0.0.1:7370" in second.stderr
    lock.release()
    assert not files.is_locked(tmp_path / "store")
    files.lock(tmp_path / "store").release()


def test_the_boot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert len(boot.boot_id()) == boot.BOOT_ID_BYTES
    assert boot.boot_id() == boot.boot_id()
    before = boot.boot_ms()
    assert 0 < before <= boot.boot_ms()
    monkeypatch.setattr(boot, "_PROC", tmp_path / "none")
    unknown = boot.boot_id()
    assert len(unknown) == boot.BOOT_ID_BYTES
    assert unknown == boot.boot_id()
