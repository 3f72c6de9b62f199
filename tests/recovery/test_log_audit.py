"""Auditing sales from the log: everything agrees, and whatever is changed or missing is found.

The commands run in a world whose blocks are written to a log on a simulated disk.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import msgpack
import pytest
from msgspec.structs import replace

from rtserver.commands.replay import Replay
from rtserver.commands.table import load
from rtserver.log_audit import audit_sales
from rtserver.persist.archive import ARCHIVE
from rtserver.persist.compaction import compact
from rtserver.persist.files import Files
from rtserver.persist.log import Log
from rtserver.persist.manifest import encode, read_manifest
from rtserver.persist.recovery import recover
from rtserver.persist.snapshot import is_snapshot_name, read_snapshot, write_snapshot
from rtserver.state.store import Store
from rtserver.wire.codec import pack
from tests.persist.disk import Disk, SimulatedFiles
from tests.persist.states import SMALL, STORE
from tests.sales import Shop
from tests.world import World

NOTHING_STAYS = replace(SMALL, archive_bytes=0)


def empty_state() -> Replay:
    return Replay(load(), Store())


class Logged:
    """A world with a log."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.files = SimulatedFiles(self.disk)
        self.world = World()
        self._written = 0
        recovered = recover(STORE, self.files, apply_block=lambda *_: 0, load_chunk=lambda _: None)
        self.log = Log.open(
            STORE,
            self.files,
            recovered,
            config=NOTHING_STAYS,
            closing_record=lambda: pack(("log.totals", 1, [self.world.store.totals()])),
            notify=lambda: None,
            keep_since=self.world.store.sales.oldest_ms,
            threaded=False,
        )
        self.log.work()

    def write(self) -> None:
        """What the world did since the last call, and a sync."""
        for now, records in self.world.blocks[self._written :]:
            assert self.log.reserve(sum(map(len, records)))
            self.log.append(records, now)
        self._written = len(self.world.blocks)
        self.log.request_sync()
        self.log.work()
        self.log.poll()

    def close_segment(self) -> None:
        self.write()
        self.log.rotate(self.world.now)
        self._work_off()

    def snapshot(self) -> None:
        """In a new segment, since there is one a segment at most."""
        self.close_segment()
        self.log.register_snapshot(compact(STORE, self.files, empty_state))
        self._work_off()

    def _work_off(self) -> None:
        while not self.log.settled:
            self.log.work()
        self.log.poll()

    def names(self, folder: str = "") -> list[str]:
        return self.files.list_dir(STORE / folder)


def buy(shop: Shop, user: str, words: str = "confirm") -> None:
    shop.hold = shop.say(f"reserve user={user} items=a:1")["hold"]
    shop.say(words)


def sold() -> tuple[Logged, Shop]:
    """A sale over several segments and snapshots, with holds of every kind."""
    logged = Logged()
    shop = Shop(logged.world, items={"a": 100, "b": 5})
    for round_number in range(5):
        buy(shop, f"ann{round_number}")
        buy(shop, f"bob{round_number}", "cancel")
        buy(shop, f"cid{round_number}")
        shop.say("refund")
        shop.say(f"reserve user=dan{round_number} items=a:1+b:1")
        shop.world.advance(40_000)
        logged.snapshot()
    buy(shop, "last")
    logged.write()
    return logged, shop


def audited(logged: Logged, **options: Any) -> dict[str, Any]:
    report = audit_sales(STORE, SimulatedFiles(logged.disk), **options)
    assert report["ok"] == (not report["problems"])
    return report


def test_everything_agrees() -> None:
    logged, shop = sold()
    report = audited(logged)
    assert report["ok"], report
    assert (report["basis"], report["running"]) == (None, False)
    assert len(report["snapshots"]) >= 2
    assert all(one["ok"] for one in report["snapshots"])
    (row,) = report["sales"]
    total = shop.say("status")["total"]
    assert {of: row[of] for of in total} == total
    assert row["orders"] == 11
    assert row["steps"] == len(shop.steps())
    assert (row["name"], row["state"], row["deleted"], row["from_log"]) == (
        "s",
        "open",
        False,
        True,
    )


def test_one_sale_of_several() -> None:
    logged, shop = sold()
    shop.ask("sale.create", name="other", items={"x": 3})
    logged.snapshot()
    assert [row["name"] for row in audited(logged)["sales"]] == ["s", "other"]
    assert [row["name"] for row in audited(logged, name="other")["sales"]] == ["other"]
    assert audited(logged, name="none")["sales"] == []


def test_a_deleted_sale_is_audited_before_it_goes() -> None:
    logged, shop = sold()
    shop.say("close release=true")
    shop.say("delete")
    shop.ask("sale.create", name="s", items={"a": 1})
    logged.write()
    report = audited(logged)
    assert report["ok"], report
    assert [(row["name"], row["deleted"], row["orders"]) for row in report["sales"]] == [
        ("s", True, 11),
        ("s", False, 0),
    ]


def test_the_archive_leads_back_to_before_the_sale() -> None:
    """Nothing of the log would stay, but for the sale; so it can be derived again."""
    logged = Logged()
    for _ in range(4):
        logged.world.call("counter.add", "likes", 1)
        logged.world.advance(1)
        logged.snapshot()
    assert logged.names(ARCHIVE) == []
    logged.world.advance(1)
    shop = Shop(logged.world, items={"a": 100})
    for number in range(6):
        buy(shop, f"ann{number}")
        logged.snapshot()
    report = audited(logged)
    assert report["ok"], report
    assert is_snapshot_name(report["basis"])
    assert [row["from_log"] for row in report["sales"]] == [True]
    shop.say("close")
    shop.say("delete")
    logged.snapshot()
    assert logged.names(ARCHIVE) == []


def test_where_the_beginning_is_gone_a_snapshot_is_not_enough() -> None:
    logged, _ = sold()
    for name in logged.names(ARCHIVE):
        logged.files.remove(STORE / ARCHIVE / name)
    report = audited(logged)
    (problem,) = report["problems"]
    assert "its beginning, up to record" in problem
    assert [(row["from_log"], row["ok"]) for row in report["sales"]] == [(False, False)]
    report = audited(logged, accept_snapshot=True)
    assert report["ok"], report
    assert [(row["from_log"], row["ok"]) for row in report["sales"]] == [(False, True)]
    assert report["basis_seq"] > 1


def test_a_missing_segment() -> None:
    logged, _ = sold()
    logged.files.remove(STORE / ARCHIVE / logged.names(ARCHIVE)[1])
    assert "missing" in audited(logged)["problems"][0]


def test_a_changed_byte() -> None:
    logged, _ = sold()
    data = logged.disk.names[STORE / ARCHIVE / logged.names(ARCHIVE)[1]].data
    place = data.find(b"ann1")
    data[place] ^= 1
    assert "is damaged at offset" in audited(logged)["problems"][0]


# --- forgeries: checksums and digests are right ---


def forge_snapshot(logged: Logged, change: Any) -> None:
    """Rewrites the newest snapshot, with each chunk changed, and the manifest."""
    files: Files = logged.files
    manifest = read_manifest(STORE, files)
    assert manifest is not None
    entry = manifest.snapshots[-1]
    store_id = bytes.fromhex(manifest.store_id)
    meta, *chunks = [chunk for chunk, _ in read_snapshot(STORE / entry.name, files, store_id)]
    found = [change(chunk) or chunk for chunk in chunks]
    path, forged = write_snapshot(STORE, files, store_id, meta, found)
    files.rename(path, STORE / forged.name)
    listed = dataclasses.replace(manifest, snapshots=(*manifest.snapshots[:-1], forged))
    files.write_atomically(STORE / "MANIFEST", encode(listed))


def more_sold(chunk: Any) -> None:
    """An item has a sold unit more and a free one less."""
    if chunk[0] == "sales" and chunk[1][0] == "book" and chunk[1][1][0] == "items":
        chunk[1][1][1][0][3] += 1


def another_owner(chunk: Any) -> None:
    if chunk[0] == "sales" and chunk[1][0] == "book" and chunk[1][1][0] == "holds":
        chunk[1][1][1][0][1] = "eve"


def shorter_ledger(chunk: Any) -> None:
    if chunk[0] == "sales" and chunk[1][0] == "ledger" and chunk[1][1]:
        rows = list(unpacked(chunk[1][1]))
        chunk[1][1] = b"".join(msgpack.packb(row) for row in rows[:-1])


def another_reference(chunk: Any) -> None:
    if chunk[0] == "sales" and chunk[1][0] == "ledger" and chunk[1][1]:
        rows = list(unpacked(chunk[1][1]))
        rows[-1][-1] = "forged"
        chunk[1][1] = b"".join(msgpack.packb(row) for row in rows)


def other_terms(chunk: Any) -> None:
    if chunk[0] == "sales" and chunk[1][0] == "sale":
        chunk[1][1][2][0] += 1


def another_sale(chunk: Any) -> Any:
    if chunk[0] == "sales" and chunk[1][0] == "sale":
        chunk[1][1][0] += 1
    return None


def unpacked(data: bytes) -> Any:
    unpacker = msgpack.Unpacker()
    unpacker.feed(data)
    return unpacker


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (more_sold, "item 'a': the ledger adds up to"),
        (another_owner, "hold 1: the ledger adds up to ('sold', 'ann0'), the sale says"),
        (shorter_ledger, "steps is not that of the records"),
        (another_reference, "steps is not that of the records"),
        (other_terms, "its terms or its state"),
        (another_sale, "only the log has it"),
    ],
)
def test_a_forged_snapshot(change: Any, problem: str) -> None:
    logged, _ = sold()
    forge_snapshot(logged, change)
    report = audited(logged)
    assert any(problem in text for text in report["problems"]), report["problems"]
    assert [one["ok"] for one in report["snapshots"]][-1] is False


def test_a_forged_log_does_not_add_up_to_its_totals() -> None:
    """Somebody who knows the format takes a confirm out: all checksums are right."""
    logged = Logged()
    shop = Shop(logged.world, items={"a": 100})
    buy(shop, "ann")
    buy(shop, "bob")
    kept = [
        (now, [record for record in records if unpack(record)[0] != "sale.confirm"])
        for now, records in logged.world.blocks
    ]
    logged.world.blocks[:] = [(now, records) for now, records in kept if records]
    logged.close_segment()
    report = audited(logged)
    assert "log.totals" in report["problems"][0]


def unpack(record: bytes) -> Any:
    return msgpack.unpackb(record, strict_map_key=False)


def test_a_step_that_oversells_is_found_at_that_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of the server: a ledger that says more than there was."""
    logged = Logged()
    shop = Shop(logged.world, items={"a": 2})
    buy(shop, "ann")
    sale = logged.world.store.sales.find("s")
    original = type(sale).note

    def double(self: Any, step: str, *args: Any, **named: Any) -> None:
        original(self, step, *args, **named)
        if step == "confirmed":
            original(self, step, *args, **named)

    logged.write()
    assert audited(logged)["ok"]
    monkeypatch.setattr(type(sale), "note", double)
    report = audited(logged)
    assert report["problems"][0] == (
        "sale 's': step 5 (confirmed) moves 1 of 'a', so that -1 are held"
    )
