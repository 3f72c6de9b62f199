"""The configuration: typed keys of one TOML file, and how a mistake in it is explained.

Promises: without a file everything has a working default; an unknown key or a bad value is a
`ConfigError` that names the file, the key path, what was expected and the nearest valid key.
Nothing here reads the environment or starts anything.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from rtserver.limits import PRESENCE_EVENTS_MAX, TIME_MAX, Limits

__all__ = ["Config", "ConfigError", "LogConfig", "Namespace", "load_config", "parse_listen"]

_SEGMENT_OVERHEAD = 192 * 1024  # headers, the slack of a turn's last record, the closing record
DEFAULT_PORT = 7370
DEFAULT_LISTEN = f"127.0.0.1:{DEFAULT_PORT}"
DEFAULT_DATA = "rtserver-data"
UNIX_PEER = "unix"  # in the place of a network: processes on this machine, by a unix socket
UNIX_PATH_BYTES_MAX = 103  # what every system's sockaddr_un takes
_UNIX = "unix:"

Role = Literal["anonymous", "user", "service", "admin"]
ChannelKind = Literal["must", "latest", "transient"]  # of a channel, see protocol.md section 7


class ConfigError(Exception):
    """The configuration cannot be used; the text says where, why and what to write instead."""


class Namespace(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the channels of one namespace (the text before the first colon) behave."""

    history_count: Annotated[int, Meta(ge=0, le=1_000_000)] = 1_000
    history_bytes: Annotated[int, Meta(ge=0)] = 1024 * 1024
    history_ms: Annotated[int, Meta(ge=0, le=TIME_MAX)] = 600_000
    idle_ms: Annotated[int, Meta(ge=1_000, le=TIME_MAX)] = 86_400_000  # empty, untouched: forgotten
    kind: ChannelKind = msgspec.field(default="must", name="class")
    subscribe: Role = "service"  # the least role that may subscribe and read the history
    publish: Role = "service"  # the least role that may publish
    presence: Role = "service"  # the least role that may see who is here
    # With more members, or more changes at once: counts, no names.
    presence_events_max: Annotated[int, Meta(ge=0, le=PRESENCE_EVENTS_MAX)] = 100


class LogConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The append-only log and the snapshots."""

    segment_bytes: Annotated[int, Meta(ge=64 * 1024)] = 64 * 1024 * 1024
    sync_interval_ms: Annotated[int, Meta(ge=1, le=60_000)] = 50  # of `logged` writes
    snapshot_after_bytes: Annotated[int, Meta(ge=64 * 1024)] = 512 * 1024 * 1024
    archive_bytes: Annotated[int, Meta(ge=0)] = 4 * 1024 * 1024 * 1024
    archive_days: Annotated[int, Meta(ge=0)] = 30


class TlsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files in PEM form, read again on SIGHUP."""

    certificate: str
    key: str


class ListenerConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One more place to listen at, beside `listen`."""

    listen: str  # HOST:PORT or unix:/path
    admin: bool = False  # /metrics is there; once one is, it is only there
    tls: TlsConfig | None = None


class WebConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which web pages and proxies may speak to this server."""

    origins: list[str] = []  # such as "https://shop.example"; "*" for any. None: same host only
    hosts: list[str] = []  # names this server is called by; none: any
    trusted_proxies: list[str] = []  # networks or "unix": whose X-Forwarded-For is believed


class ServiceKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A secret of a back end, kept as its hash."""

    hash: str  # sha256:HEX of the secret, as `rtserver token hash` prints it
    role: Role = "service"


class AuthConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How connections say who they are."""

    keys: str | None = None  # a file with a JWK set (RFC 7517), read again on SIGHUP
    issuer: str | None = None
    audience: str | None = None
    leeway_ms: Annotated[int, Meta(ge=0, le=300_000)] = 5_000  # between our clock and the issuer's
    anonymous: bool = False  # whether a connection that says nothing may stay, without rights
    services: dict[str, ServiceKey] = {}


class SalesConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The challenges that a queue may ask of those who join."""

    challenge_keys: str | None = None  # a file with a JWK set, read again on SIGHUP
    challenge_ms_max: Annotated[int, Meta(ge=1_000, le=TIME_MAX)] = 600_000  # that a token lasts
    challenge_leeway_ms: Annotated[int, Meta(ge=0, le=300_000)] = 5_000  # between two clocks


class RightsRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The least role for a command (`*` at the end: all that begin so) on names of a pattern, in
    which `$self` stands for the caller, `*` as a part for any part, and at the end for any rest."""

    command: str
    role: Role
    name: str = "*"


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration; each field is a key or a table of the file."""

    listen: str = DEFAULT_LISTEN
    data: str = DEFAULT_DATA
    listeners: list[ListenerConfig] = []
    log: LogConfig = LogConfig()
    limits: Limits = Limits()
    web: WebConfig = WebConfig()
    auth: AuthConfig = AuthConfig()
    sales: SalesConfig = SalesConfig()
    rights: list[RightsRow] = []
    namespaces: dict[str, Namespace] = {}


def load_config(path: Path | None) -> Config:
    """The configuration in a file, or the defaults. Raises ConfigError."""
    if path is None:
        return Config()
    try:
        tree = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None
    try:
        config = msgspec.convert(tree, Config)
        check_config(config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {_explain(str(error), tree)}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return config


def check_config(config: Config) -> None:
    """The relations between keys. Raises ConfigError."""
    needed = config.limits.turn_log_bytes_max + config.limits.frame_bytes_max + _SEGMENT_OVERHEAD
    if config.log.segment_bytes < needed:
        raise ConfigError(
            f"log.segment_bytes is {config.log.segment_bytes}, expected at least {needed}: one turn"
            " (limits.turn_log_bytes_max), one frame (limits.frame_bytes_max) and headers must fit"
        )
    if config.limits.outbox_hard_bytes <= config.limits.outbox_soft_bytes:
        raise ConfigError("limits.outbox_hard_bytes must be more than limits.outbox_soft_bytes")
    parse_listen(config.listen)
    for listener in config.listeners:
        if unix_path(listener.listen) is None:
            parse_listen(listener.listen)
    for network in config.web.trusted_proxies:
        parse_network(network)


def parse_network(text: str) -> IPv4Network | IPv6Network | None:
    """A network of `web.trusted_proxies`, or None for `unix`: whoever comes by a unix socket.
    Raises ConfigError."""
    if text == UNIX_PEER:
        return None
    try:
        return ip_network(text)
    except ValueError:
        raise ConfigError(
            f"web.trusted_proxies names {text!r}, expected addresses such as 10.0.0.0/8 or ::1,"
            f" or {UNIX_PEER!r}"
        ) from None


def unix_path(text: str) -> str | None:
    """The path of "unix:/path"; None where that is another kind of address. Raises ConfigError."""
    if not text.startswith(_UNIX):
        return None
    path = text.removeprefix(_UNIX)
    if not path.startswith("/") or len(path.encode()) > UNIX_PATH_BYTES_MAX:
        raise ConfigError(
            f"listen is {text!r}, expected unix:/PATH with at most {UNIX_PATH_BYTES_MAX} bytes"
        )
    return path


def parse_listen(text: str) -> tuple[str, int]:
    """(host, port) of "HOST:PORT"; port 0 takes a free one. Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"listen is {text!r}, expected HOST:PORT such as {DEFAULT_LISTEN}")
    return host, int(port)


_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>.*?)`(?: - at `\$?\.?(?P<at>.*)`)?")
_MISSING = re.compile(r"Object missing required field `(?P<key>.*?)`")
_BAD = re.compile(r"(?P<why>.*?) - at `\$\.?(?P<at>.*)`$")
_STEP = re.compile(r"\[(?P<place>\d+)\]|\[\.\.\.\]|(?P<key>[^.\[]+)")

_Path = list[str | int]


def _explain(message: str, tree: dict[str, Any]) -> str:
    """msgspec's validation message in terms of TOML keys."""
    unknown = _UNKNOWN.match(message)
    if unknown is not None:
        return _explain_unknown(unknown["key"], _path(unknown["at"] or "", tree))
    bad = _BAD.match(message)
    if bad is None:
        return message
    path = _path(bad["at"], tree)
    missing = _MISSING.match(bad["why"])
    if missing is not None:
        return f"{_written([*path, missing['key']])} is missing"
    found = _lookup(tree, path)
    expected = bad["why"].removeprefix("Expected ").replace("`", "")
    if get_origin(_kind_at(path)) is Literal:
        expected = " or ".join(get_args(_kind_at(path)))
    return f"{_written(path)} is {found!r}, expected {expected}"


def _explain_unknown(key: str, table: _Path) -> str:
    valid = [field.encode_name for field in msgspec.structs.fields(_kind_at(table))]
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    path = _written([*table, key])
    if near:
        return f"{path} is not a key; did you mean {_written([*table, near[0]])}?"
    return f"{path} is not a key; expected one of {', '.join(sorted(valid))}"


def _path(at: str, tree: dict[str, Any]) -> _Path:
    """The keys of msgspec's `a[0].b[...].c`; [...] stands for the one entry that is wrong."""
    path: _Path = []
    for step in _STEP.finditer(at):
        if step["place"] is not None:
            path.append(int(step["place"]))
        else:
            path.append(step["key"] or _guilty(_lookup(tree, path), _kind_at([*path, ""])))
    return path


def _guilty(table: dict[str, Any], kind: Any) -> str:
    for name, value in table.items():
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError:
            return name
    return "NAME"


def _written(path: _Path) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)[1:]


def _lookup(tree: Any, path: _Path) -> Any:
    for key in path:
        tree = tree[key] if isinstance(key, int) else tree.get(key)
    return tree


def _kind_at(path: _Path) -> Any:
    """The type of what stands there."""
    kind: Any = Config
    for key in path:
        if get_origin(kind) in (list, dict):
            kind = get_args(kind)[-1]
        else:
            names = {field.encode_name: field.name for field in msgspec.structs.fields(kind)}
            kind = get_type_hints(kind)[names[str(key)]]
        inner = get_args(kind)
        if type(None) in inner:
            kind = inner[0]
    return kind
