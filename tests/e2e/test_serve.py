"""The command line and the life of a process: starts that are refused and why, signals, restarts,
logs and snapshots from outside, a manual clock, a full disk."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import threading
import time

import pytest

from tests.process import ErrorReply, ServerProcess, cli, eventually

OK, FAILED, USAGE, NOT_STARTED, CONFIG, DAMAGED, UNREACHABLE = 0, 1, 2, 3, 4, 5, 6


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


def probe(server, path):
    """(status, content) of a health path."""
    answer = server.raw(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    )
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


# --- refused starts ---


def test_without_dev_it_says_why_not(data):
    done = cli("serve", "--data", data, "--listen", "127.0.0.1:0")
    assert done.returncode == CONFIG
    assert "--dev" in done.stderr
    assert "authentication" in done.stderr
    assert not data.exists()


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.com:0"])
def test_dev_is_for_loopback_only(data, address):
    done = cli("serve", "--dev", "--data", data, "--listen", address)
    assert done.returncode == CONFIG
    assert "loopback" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[limits]\nframe_byte_max = 1", "did you mean limits.frame_bytes_max?"),
        ("[limits]\nframe_bytes_max = 'big'", "limits.frame_bytes_max is 'big', expected"),
        ("[limits]\nframe_bytes_max = 99999999999", "limits.frame_bytes_max is 99999999999"),
        ("[log]\nsegment_bytes = 70000", "log.segment_bytes is 70000, expected at least"),
        ("[namespaces.room]\nsubscribe = 'all'", "namespaces.room.subscribe is 'all', expected"),
        ("[namespaces.room]\nhistory = 5", "namespaces.room.history is not a key; did you mean"),
        ("listen = '127.0.0.1'", "expected HOST:PORT"),
        ("listn = 5", "listn is not a key; did you mean listen?"),
        ("limits = [", "is not TOML"),
        ("\udcff", "is not TOML"),
    ],
)
def test_a_mistake_in_the_configuration_is_explained(tmp_path, data, text, said):
    path = tmp_path / "rt.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    done = cli("serve", "--dev", "--config", path, "--data", data)
    assert done.returncode == CONFIG
    assert str(path) in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_configuration_that_is_not_there(tmp_path):
    done = cli("serve", "--dev", "--config", tmp_path / "none.toml")
    assert done.returncode == CONFIG
    assert "none.toml" in done.stderr


def test_the_smallest_segments_that_are_accepted_work(tmp_path, data):
    """What check_config lets through must run."""
    path = tmp_path / "rt.toml"
    limits = "[limits]\nturn_log_bytes_max = 4096\nframe_bytes_max = 65536\n"
    path.write_text(f"{limits}[log]\nsegment_bytes = 65536\n")
    refused = cli("serve", "--dev", "--config", path, "--data", data).stderr
    least = re.search(r"expected at least (\d+)", refused).group(1)
    path.write_text(f"{limits}[log]\nsegment_bytes = {least}\n")
    with ServerProcess(data, "--config", path) as server, server.client() as client:
        for _ in range(10):
            eventually(lambda: published(client, "x" * 60_000))
        assert server.stop() == OK


def published(client, data):
    """Whether it could be published; a log of small segments may have to prepare the next."""
    with contextlib.suppress(ErrorReply):
        return client.call("channel.publish", "c", data)
    return None


@pytest.mark.parametrize("arguments", [["--port", "1"], ["extra"]])
def test_usage(arguments):
    assert cli("serve", *arguments).returncode == USAGE


def test_a_port_that_is_taken(tmp_path, data):
    with ServerProcess(data) as server:
        address = f"127.0.0.1:{server.address[1]}"
        done = cli("serve", "--dev", "--data", tmp_path / "other", "--listen", address)
    assert done.returncode == NOT_STARTED
    assert address in done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_that_is_in_use(data):
    with ServerProcess(data) as server:
        done = cli("serve", "--dev", "--data", data, "--listen", "127.0.0.1:0")
        assert done.returncode == NOT_STARTED
        assert str(server.pid) in done.stderr
        assert str(server.address[1]) in done.stderr
        assert server.inline("counter.add a") == ["1"]


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    done = cli("serve", "--dev", "--data", tmp_path / "file" / "data", "--listen", "127.0.0.1:0")
    assert done.returncode == NOT_STARTED
    assert "Traceback" not in done.stderr


def test_damaged_data_is_named(data):
    with ServerProcess(data) as server:
        for number in range(50):
            server.inline(f"counter.add c{number} ack=synced")
        assert server.stop() == OK
    segment = sorted(data.glob("log-*.seg"))[0]
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)
    done = cli("serve", "--dev", "--data", data, "--listen", "127.0.0.1:0")
    assert done.returncode == DAMAGED
    assert segment.name in done.stderr
    assert "rtserver log" in done.stderr
    assert "Traceback" not in done.stderr
    checked = cli("log", "check", data)
    assert checked.returncode == DAMAGED
    assert json.loads(checked.stdout)["problems"][0]["file"] == segment.name


def test_version_and_help():
    assert "protocol 1" in cli("--version").stdout
    assert cli("--help").returncode == OK
    assert "--manual-clock" in cli("serve", "--help").stdout


# --- signals ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well(data, number):
    with ServerProcess(data) as server:
        with server.client() as client, server.client() as other:
            other.call("channel.subscribe", "c")
            waiting = [client.send("counter.add", "a", ack="synced") for _ in range(200)]
            first = client.reply(waiting[0])
            server.process.send_signal(number)
            replies = [frame for frame in client.read_to_end() if frame[0] == 1]
            method, close = other.push()
            assert (method, close["code"], close["name"]) == ("close", 4000, "drain")
        assert server.process.wait(30) == OK
        answered = 1 + sum(frame[2] is None for frame in replies)
        assert first == 1
        server.start()
        (value,) = server.inline("counter.get a")
        assert answered <= int(value) <= 200
        assert any("recovered" in line for line in server.lines)


def test_everything_that_was_read_is_answered_before_the_end(data):
    with ServerProcess(data) as server, server.client() as client:
        for _ in range(20):
            client.send("counter.add", "a", ack="synced")
        client.call("server.ping")
        server.process.send_signal(signal.SIGTERM)
        frames = client.read_to_end()
        assert frames[-1][1] == "close"
        assert server.process.wait(30) == OK


def test_who_does_not_read_does_not_keep_it_alive(data):
    with ServerProcess(data) as server, server.client() as client:
        client.call("channel.publish_many", [["c", "x" * 50_000]] * 5)
        for _ in range(400):
            client.send("channel.history", "c")
        started = time.monotonic()
        assert server.stop() == OK
        assert time.monotonic() - started < 20


def test_an_empty_start_and_stop_is_clean(data):
    for _ in range(3):
        with ServerProcess(data) as server:
            assert server.stop() == OK
    report = json.loads(cli("log", "check", data).stdout)
    assert report["ok"]
    assert report["clean"]
    assert not report["torn"]


def test_positions_survive_a_restart(data):
    with ServerProcess(data) as server:
        with server.client() as client:
            position = client.call("channel.publish", "room:1", "one")
        server.stop()
        server.start()
        with server.client() as client:
            since = [position["epoch"], 0]
            reply = client.call("channel.subscribe", "room:1", since)
    assert reply["recovered"]
    assert [message["data"] for message in reply["messages"]] == ["one"]


# --- logs and snapshots from outside ---


def test_the_log_can_be_checked_and_dumped(data):
    with ServerProcess(data) as server:
        server.inline("counter.add a 5 idempotency_key=k", "board.submit b ann 7")
        server.stop()
    report = json.loads(cli("log", "check", data).stdout)
    assert report["ok"]
    rows = [json.loads(line) for line in cli("log", "dump", data).stdout.splitlines()]
    methods = [row["record"][0] for row in rows]
    assert "counter.add" in methods
    assert "board.submit" in methods
    assert [row["seq"] for row in rows] == [*range(1, len(rows) + 1)]
    later = cli("log", "dump", data, "--from-seq", "3").stdout.splitlines()
    assert later == cli("log", "dump", data).stdout.splitlines()[2:]


def test_a_log_that_needs_no_repair(data):
    with ServerProcess(data) as server:
        server.inline("counter.add a 5")
        locked = cli("log", "repair", data)
        assert locked.returncode != OK
        assert "Traceback" not in locked.stderr
        server.stop()
    done = cli("log", "repair", data)
    assert "Traceback" not in done.stderr
    with ServerProcess(data) as server:
        assert server.inline("counter.get a") == ["5"]


def test_snapshots_of_a_running_server(data):
    none = cli("snapshot", "create", data)
    assert none.returncode == UNREACHABLE
    with ServerProcess(data) as server:
        with server.client() as client:
            client.call("counter.add_many", [[f"c{n}", n + 1] for n in range(1_000)])
            client.call("board.submit_many", "b", [[f"m{n}", n] for n in range(1_000)])
            epoch = client.call("channel.publish", "c", "kept")["epoch"]
            client.call("counter.add", "keyed", idempotency_key="k")
        made = cli("snapshot", "create", data)
        assert made.returncode == OK, made.stderr
        name = json.loads(made.stdout)["name"]
        listed = [json.loads(line) for line in cli("snapshot", "list", data).stdout.splitlines()]
        assert [row["name"] for row in listed] == [name]
        verified = cli("snapshot", "verify", data)
        assert verified.returncode == OK, verified.stdout
        server.inline("counter.add c0 100")
        server.kill()
        server.start()
        assert any(name in line for line in server.lines)
        with server.client() as client:
            assert client.call("counter.get", "c0") == 101
            assert client.call("counter.get", "c999") == 1_000
            assert client.call("board.count", "b") == 1_000
            assert client.call("channel.subscribe", "c", [epoch, 0])["recovered"]
            assert client.call("counter.add", "keyed", idempotency_key="k") == 1
    assert json.loads(cli("log", "check", data).stdout)["ok"]


def test_a_damaged_snapshot_is_found(data):
    with ServerProcess(data) as server:
        server.inline("counter.add a 5")
        assert cli("snapshot", "create", data).returncode == OK
        server.stop()
    (path,) = data.glob("snapshot-*.snap")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    assert cli("snapshot", "verify", data).returncode == DAMAGED
    assert cli("log", "check", data).returncode == DAMAGED


def test_snapshots_while_it_works(data):
    with ServerProcess(data) as server:
        stop = threading.Event()

        def write():
            with server.client() as client:
                while not stop.is_set():
                    client.call("counter.add", "busy")
                    time.sleep(0.002)

        writer = threading.Thread(target=write)
        writer.start()
        seqs = []
        for _ in range(2):
            seqs.append(eventually(lambda: snapshot_seq(data), timeout_s=60))
        stop.set()
        writer.join(20)
        assert seqs == sorted(set(seqs))
        (value,) = server.inline("counter.get busy")
        server.kill()
        server.start()
        assert server.inline("counter.get busy") == [value]


def snapshot_seq(data):
    """Where a new snapshot ends; None while the log prepares the segment that it needs."""
    done = cli("snapshot", "create", data, timeout_s=200)
    if done.returncode != OK:
        assert json.loads(done.stdout.removeprefix("!"))[1] == "overloaded", done.stderr
        return None
    return json.loads(done.stdout)["seq"]


# --- time, health, help ---


def test_the_manual_clock(data):
    with ServerProcess(data, "--manual-clock") as server, server.client() as client:
        assert any("manual" in line for line in server.lines)
        client.call("counter.add", "short", 1, 60_000)
        now = client.call("server.time")["now"]
        time.sleep(0.05)
        assert client.call("server.time")["now"] == now
        assert client.call("server.advance", 59_999)["now"] == now + 59_999
        assert client.call("counter.get", "short") == 1
        client.call("server.advance", 1)
        assert client.call("counter.get", "short") == 0
        server.kill()
        server.start()
        assert int(json.loads(server.inline("server.time")[0])["now"]) >= now + 60_000


def test_time_cannot_be_moved_without_it(server):
    (answer,) = server.inline("server.advance 1000")
    assert json.loads(answer[1:])[1] == "conflict"


def test_health(server):
    assert probe(server, "/livez") == (200, {"status": "live"})
    assert probe(server, "/readyz") == (200, {"status": "ready", "why": []})


def test_help(server):
    lines = server.inline("help")
    for noun in ("counter", "board", "channel", "server"):
        assert any(noun in line for line in lines)
    assert any("limit=100" in line for line in server.inline("help board.top"))
    assert server.inline("help nonsense")


def test_a_session_in_nc(server):
    lines = [
        "channel.subscribe room:nc",
        'channel.publish room:nc {"text": "hi"} key=k',
        "board.submit nc ann 310",
        "board.top nc 3 kind=dense",
        "counter.add a b",
    ]
    with server.connect() as connection:
        connection.sendall("".join(f"{line}\n" for line in lines).encode())
        answers = connection.makefile("r", encoding="utf-8")
        said = [answers.readline() for _ in range(len(lines) + 1)]
    pushes = [json.loads(line[1:]) for line in said if line.startswith(">")]
    errors = [json.loads(line[1:]) for line in said if line.startswith("!")]
    assert [push[2]["data"] for push in pushes] == [{"text": "hi"}]
    assert [error[1] for error in errors] == ["invalid_params"]


# --- a full disk ---


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.decode()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
def small_segments(tmp_path):
    path = tmp_path / "rt.toml"
    path.write_text(
        "[limits]\nturn_log_bytes_max = 65536\nframe_bytes_max = 65536\n"
        "[log]\nsegment_bytes = 524288\nsnapshot_after_bytes = 104857600\n"
    )
    return path


def test_a_full_disk_refuses_writes_and_loses_nothing(small_disk, small_segments):
    filler = small_disk / "filler"
    with ServerProcess(small_disk / "data", "--config", small_segments) as server:
        with server.client() as client:
            filler.write_bytes(b"x" * (1 << 20))
            fill(client, "channel.publish", "c", "x" * 20_000)
            value = fill(client, "counter.add", "full")
            assert client.call("counter.get", "full") == value
            with pytest.raises(ErrorReply, match="disk_full"):
                client.call("counter.add", "full", idempotency_key="later")
            assert client.call("counter.get", "full") == value
            status, content = probe(server, "/readyz")
            assert status == 503
            assert "disk_full" in content["why"][0]
            assert probe(server, "/livez")[0] == 200
            filler.unlink()
            eventually(lambda: writes(client))
            assert probe(server, "/readyz")[0] == 200
            assert client.call("counter.add", "full", idempotency_key="later") == value + 1
        server.kill()
        server.start()
        assert server.inline("counter.get full") == [str(value + 1)]
        assert server.stop() == OK
    assert json.loads(cli("log", "check", small_disk / "data").stdout)["ok"]


def fill(client, *write):
    """Writes until there is no room; how often it was acknowledged."""
    acknowledged = 0
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            client.call(*write, idempotency_key=f"{write[0]}-{acknowledged}")
            acknowledged += 1
        except ErrorReply as error:
            if error.name == "disk_full":
                return acknowledged
            if error.name != "overloaded":
                raise
            time.sleep(0.02)
    raise AssertionError("the disk did not fill up")


def writes(client):
    with contextlib.suppress(ErrorReply):
        return client.call("counter.add", "ready")
    return None


def test_a_start_on_a_full_disk(small_disk, small_segments):
    with ServerProcess(small_disk / "data", "--config", small_segments) as server:
        server.inline("counter.add a 5")
        server.stop()
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4_096)
    serve = ["serve", "--dev", "--listen", "127.0.0.1:0", "--config", small_segments]
    done = cli(*serve, "--data", small_disk / "data")
    assert done.returncode == NOT_STARTED
    assert "space" in done.stderr
    assert "Traceback" not in done.stderr
    filler.unlink()
    with ServerProcess(small_disk / "data", "--config", small_segments) as server:
        assert server.inline("counter.get a") == ["5"]


def test_time_goes_on_where_it_stood_after_an_idle_stop(tmp_path):
    """The end of the log says both clocks; time between the last write and it counts once."""
    server = ServerProcess(tmp_path / "data").start()
    client = server.client()
    client.call("counter.add", "a")
    time.sleep(2)
    assert server.stop() == 0
    with ServerProcess(tmp_path / "data") as again:
        assert abs(again.client().call("server.time")["offset_ms"]) < 1_500
