"""SIGKILL at random moments under load: what was acknowledged is there, once.

Several connections write, in pipelines, and note every answer; the server is killed, sometimes
also while it recovers, and started again with another hash seed and another configuration. Every
operation touches a counter, a member or a message of its own, so each can be looked up: an
operation acknowledged `logged` or `synced` happened once, any other at most once, one that was
sent again under its key or source exactly once. A subscriber lives through all of it and must see
every message once, in order, always `recovered`.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

import pytest

from tests.process import ServerProcess, eventually, frame

WRITERS = 3
PIPELINE_MAX = 12
ROOM = "room:all"
DONE, UNKNOWN = "done", "unknown"
RETRIED = {"keyed", "client_key", "member_keyed", "publish_keyed", "fed"}
KINDS = [*RETRIED, "add", "many", "member", "publish"]
CONFIG = """
[limits]
turn_log_bytes_max = 65536
frame_bytes_max = 65536
[log]
segment_bytes = 524288
snapshot_after_bytes = 262144
[namespaces.room]
history_count = 1000000
history_bytes = 268435456
history_ms = 3600000
[namespaces.other]
history_count = {changing}
"""


class Operation:
    """One write, its answer, and where it can be looked up."""

    def __init__(self, kind, name, ack, number):
        self.kind = kind
        self.name = name  # of its counter, its member or its message
        self.ack = ack
        self.number = number  # of its SDK key, or its offset in the feed
        self.state = UNKNOWN
        self.sent = 0
        self.offset = None

    @property
    def sure(self):
        """Whether it must be found after a kill."""
        return self.state == DONE and self.ack != "memory"

    def body(self, writer, request_id):
        options = {"ack": self.ack}
        if self.kind in ("keyed", "member_keyed", "publish_keyed"):
            options["idempotency_key"] = self.name
        elif self.kind == "client_key":
            options["idempotency_key"] = [writer.name, self.number, writer.heard()]
        elif self.kind == "fed":
            options["source"] = [writer.name, 0, self.number]
        method, params = {
            "many": ("counter.add_many", [[["hot", 1], [self.name, 1]]]),
            "member": ("board.submit", ["scores", self.name, 1, "sum"]),
            "member_keyed": ("board.submit", ["scores", self.name, 1, "sum"]),
            "publish": ("channel.publish", [ROOM, self.name]),
            "publish_keyed": ("channel.publish", [ROOM, self.name]),
        }.get(self.kind, ("counter.add", [self.name, 1]))
        return [0, request_id, method, params, options]


class Party(threading.Thread):
    """Somebody with a connection, who comes back when the server does."""

    def __init__(self, trial, name):
        super().__init__(name=name, daemon=True)
        self.trial = trial
        self.parked = threading.Event()
        self.failure = None

    def run(self):
        try:
            while self.come_back():
                try:
                    with self.trial.server.client() as client:
                        self.live(client)
                except (EOFError, OSError):
                    continue
        except BaseException as error:
            self.failure = error
        finally:
            self.parked.set()

    def come_back(self):
        """Waits for the server; False at the end of the trial."""
        if not self.trial.up.is_set():
            self.parked.set()
            self.trial.up.wait()
        self.parked.clear()
        return not self.finished()

    def finished(self):
        return self.trial.ended.is_set()


class Writer(Party):
    def __init__(self, trial, name, source):
        super().__init__(trial, name)
        self.source = source
        self.operations = []
        self.made = self.client_key = self.fed = 0

    def heard(self):
        """The SDK key up to which every answer was heard."""
        open_numbers = [
            one.number
            for one in self.operations[-2_000:]
            if one.kind == "client_key" and one.state != DONE
        ]
        return min(open_numbers, default=self.client_key + 1) - 1

    def pending(self):
        """What is sent again after a kill, in its order."""
        return [one for one in self.operations if one.state == UNKNOWN and one.kind in RETRIED]

    def finished(self):
        return super().finished() or (self.trial.over.is_set() and not self.pending())

    def live(self, client):
        retried = self.pending()
        for start in range(0, len(retried), PIPELINE_MAX):
            self.exchange(client, retried[start : start + PIPELINE_MAX])
        while not self.trial.over.is_set():
            count = self.source.randint(1, PIPELINE_MAX)
            fresh = [self.make() for _ in range(count)]
            self.operations += fresh
            self.exchange(client, fresh)

    def make(self):
        kind = self.source.choice(KINDS)
        acks = ("logged", "synced") if kind == "fed" else ("memory", "logged", "synced")
        number = None
        if kind == "client_key":
            self.client_key += 1
            number = self.client_key
        elif kind == "fed":
            self.fed += 1
            number = self.fed
        self.made += 1
        name = f"{self.name}:fed" if kind == "fed" else f"{self.name}:{kind}:{self.made}"
        return Operation(kind, name, self.source.choice(acks), number)

    def exchange(self, client, operations):
        """One write with all of them; then their answers as they come."""
        by_id = {self.trial.next_id(): one for one in operations}
        for one in operations:
            one.sent += 1
        client.socket.sendall(b"".join(frame(one.body(self, n)) for n, one in by_id.items()))
        while by_id:
            _, request_id, error, result = client.read()
            one = by_id.pop(request_id)
            if error is not None:
                assert one.kind == "fed", (one.kind, error)
                assert one.sent > 1, "duplicate without having been sent before"
                assert error[1] == "duplicate"
            elif one.kind.startswith("publish"):
                one.offset = result["offset"]
            elif one.kind not in ("fed", "many"):
                assert (result["score"] if "member" in one.kind else result) == 1, "applied twice"
            one.state = DONE


class Subscriber(Party):
    """Follows the room through every restart."""

    def __init__(self, trial):
        super().__init__(trial, "subscriber")
        self.position = None
        self.names = []

    def live(self, client):
        if self.position is None:
            epoch = client.call("channel.subscribe", ROOM)["epoch"]
            client.call("channel.unsubscribe", ROOM)
            self.position = [epoch, 0]
            client.pushes.clear()
        client.send_body([0, 0, "server.hello", {"positions": {ROOM: self.position}}])
        reply = client.reply(0)["channels"][ROOM]
        assert reply["recovered"], "a kill must not cost a subscriber anything"
        assert reply["epoch"] == self.position[0]
        for message in reply["messages"]:
            self.take(message)
        while True:
            method, message = client.push()
            if method == "message":
                self.take(message)

    def take(self, message):
        assert message["offset"] == len(self.names) + 1, "a gap or a repetition"
        self.names.append(message["data"])
        self.position[1] = message["offset"]


class Trial:
    def __init__(self, folder, seed):
        self.random = random.Random(seed)
        self.folder = folder
        self.server = ServerProcess(folder / "data", "--config", folder / "config.toml")
        self.up = threading.Event()
        self.over = threading.Event()  # no new operations
        self.ended = threading.Event()
        self.writers = [Writer(self, f"w{n}", random.Random(f"{seed}/{n}")) for n in range(WRITERS)]
        self.subscriber = Subscriber(self)
        self.kills = 0
        self._id = 0
        self._lock = threading.Lock()
        self._verified = 0

    def next_id(self):
        with self._lock:
            self._id += 1
            return self._id

    # --- one life of the server ---

    def start(self):
        changing = self.random.choice([10, 100, 1_000])
        (self.folder / "config.toml").write_text(CONFIG.format(changing=changing))
        self.server.environment = {"PYTHONHASHSEED": str(self.random.randrange(1 << 32))}
        while self.random.random() < 0.25:  # it may also die before it listens
            self.server.launch()
            time.sleep(self.random.uniform(0, 0.4))
            self.server.kill()
            self.kills += 1
        self.server.start()
        assert not [line for line in self.server.lines if "damage" in line], self.server.lines

    def live_and_kill(self):
        self.up.set()
        time.sleep(self.random.uniform(0.02, 0.6))
        self.up.clear()
        self.server.kill()
        self.kills += 1
        self.park()

    def park(self):
        for party in (*self.writers, self.subscriber):
            assert party.parked.wait(60)
            if party.failure is not None:
                raise party.failure

    def run(self, kills):
        self.start()
        for party in (*self.writers, self.subscriber):
            party.start()
        while self.kills < kills:
            self.live_and_kill()
            self.start()
            self.verify(since=self._verified)
            self._verified = max(0, min(len(one.operations) for one in self.writers) - 500)
        self.finish()

    def finish(self):
        """Everything that is open is sent again and answered; then all is looked up."""
        self.over.set()
        self.up.set()
        for writer in self.writers:
            writer.join(60)
            assert writer.failure is None, writer.failure
            assert not writer.pending()
        self.verify(since=0)
        with self.server.client() as client:
            top = client.call("channel.history", ROOM, None, None, 1)["offset"]
        eventually(lambda: self.subscriber.failure or len(self.subscriber.names) >= top)
        assert self.subscriber.failure is None
        self.up.clear()
        assert self.server.stop() == 0
        assert self.subscriber.names == self.names

    # --- looking everything up ---

    def verify(self, since):
        with self.server.client() as client:
            self.read_room(client)
            for writer in self.writers:
                for one, count in self.look_up(client, writer.operations[since:]):
                    assert one.sure <= count <= 1, (one.kind, one.ack, one.state, one.sent, count)
                self.verify_feed(client, writer)
            if since == 0:
                self.verify_sums(client)

    def read_room(self, client):
        self.names = []
        epochs = set()
        while True:
            page = client.call("channel.history", ROOM, len(self.names), None, 1_000)
            epochs.add(page["epoch"])
            for message in page["messages"]:
                assert message["offset"] == len(self.names) + 1
                self.names.append(message["data"])
            if page["next"] is None:
                break
        assert len(epochs) == 1
        repeated = [name for name, count in Counter(self.names).items() if count > 1]
        assert not repeated, f"published twice: {repeated[:5]}"
        for writer in self.writers:
            for one in writer.operations:
                if one.kind.startswith("publish") and one.sure:
                    assert self.names[one.offset - 1] == one.name, (one.ack, one.sent, one.offset)

    def look_up(self, client, operations):
        """Pairs of an operation and how often it happened."""
        published = set(self.names)
        for start in range(0, len(operations), 1_000):
            some = operations[start : start + 1_000]
            values = client.call("counter.get_many", [one.name for one in some])["values"]
            entries = []
            if any(one.kind.startswith("member") for one in some):
                members = [one.name for one in some]
                entries = client.call("board.members", "scores", members)["entries"]
            scores = {entry["member"]: entry["score"] for entry in entries}
            for one, value in zip(some, values, strict=True):
                if one.kind.startswith("member"):
                    yield one, scores.get(one.name, 0)
                elif one.kind.startswith("publish"):
                    yield one, int(one.name in published)
                elif one.kind != "fed":
                    yield one, value

    def verify_feed(self, client, writer):
        """A feed was applied without holes: its counter is the last offset that was applied."""
        fed = [one for one in writer.operations if one.kind == "fed"]
        value = client.call("counter.get", f"{writer.name}:fed")
        sure = max((one.number for one in fed if one.sure), default=0)
        assert sure <= value <= len(fed)

    def verify_sums(self, client):
        """Both halves of an add_many are there or neither."""
        many = [one for w in self.writers for one in w.operations if one.kind == "many"]
        counts = sum(count for _, count in self.look_up(client, many))
        assert client.call("counter.get", "hot") == counts


def trial(tmp_path, pytestconfig, kills):
    seed = pytestconfig.getoption("--seed")
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    one = Trial(tmp_path, seed)
    try:
        one.run(kills)
    except BaseException as error:
        error.add_note(f"run it again with --seed {seed}")
        raise
    finally:
        for event in (one.over, one.ended, one.up):
            event.set()
        one.server.kill()
    operations = [operation for writer in one.writers for operation in writer.operations]
    assert len(operations) > 20 * kills, "too little load to mean anything"
    return one


def test_what_was_acknowledged_survives_kills(tmp_path, pytestconfig):
    trial(tmp_path, pytestconfig, kills=8)


@pytest.mark.torture
def test_two_hundred_kills(tmp_path, pytestconfig):
    trial(tmp_path, pytestconfig, kills=200)
