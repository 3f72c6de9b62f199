"""From what recovery found to a directory that is ready for writing, in crash-safe order.

Torn ends are copied to quarantine/, then overwritten with zeros; every segment that holds blocks
is synced and sealed; then one new manifest says so, drops what is empty or torn away, and
remembers that new epochs are due. A crash at any step leaves what the next recovery reads as the
same log.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rtserver.persist.blocks import segment_name
from rtserver.persist.directory import StoreDirectory
from rtserver.persist.files import Files
from rtserver.persist.manifest import Manifest
from rtserver.persist.recovery import Recovered, Torn

__all__ = ["take_over"]


def take_over(path: Path, files: Files, recovered: Recovered) -> StoreDirectory:
    """Acts on what `recover` described. Raises OSError, LogFailed."""
    files.make_dir(path)
    directory = StoreDirectory(path, files, recovered.manifest, files.boot_id())
    if not recovered.manifest.generation:
        directory.save(recovered.manifest)  # first: files without a manifest mean damage
        return directory
    for torn in recovered.torn:
        _quarantine(directory, torn)
    lengths = {torn.file: torn.offset for torn in recovered.torn}
    lengths |= {segment_name(end.index): end.sealed.length for end in recovered.ends}
    for name, length in lengths.items():
        directory.settle(name, length)
    for name in recovered.bad_snapshots:
        directory.move_to_quarantine(name)
    directory.save(_settled(recovered))
    listed = {one.name for one in directory.manifest.segments}
    for name in [one.name for one in recovered.manifest.segments] + recovered.leftovers:
        if name not in listed:
            directory.remove(name)
    directory.tidy()
    return directory


def _quarantine(directory: StoreDirectory, torn: Torn) -> None:
    data = directory.files.read_file(directory.path / torn.file)
    directory.quarantine(
        f"{torn.file}.{torn.offset}.torn", data[torn.offset : torn.offset + torn.size]
    )


def _settled(recovered: Recovered) -> Manifest:
    """Everything sealed, nothing empty, nothing damaged."""
    manifest = recovered.manifest
    ends = {end.index: end.sealed for end in recovered.ends}
    segments = (replace(one, sealed=one.sealed or ends.get(one.index)) for one in manifest.segments)
    return replace(
        manifest,
        era_pending=recovered.new_epochs,
        segments=tuple(one for one in segments if one.sealed is not None),
        snapshots=tuple(
            one for one in manifest.snapshots if one.name not in recovered.bad_snapshots
        ),
    )
