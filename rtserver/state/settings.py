"""What of the configuration the state depends on.

It is state too: at start a changed value is logged as a record, so that replay meets every
command with the values that were in force when it was first applied. What `channel.configure` says
of a namespace stands above the configuration file.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from rtserver.config import Config, Namespace
from rtserver.errors import LIMIT_REACHED, RtError

__all__ = ["ChannelRules", "Settings", "namespace_of", "settings_of"]


class ChannelRules(NamedTuple):
    """How the channels of a namespace behave; see config.Namespace for units. Rows of older logs
    end earlier: new fields go to the end and have a default."""

    history_count: int
    history_bytes: int
    history_ms: int
    idle_ms: int
    kind: str = "must"
    subscribe: str = "service"
    publish: str = "service"
    presence: str = "service"
    presence_events_max: int = 100

    @property
    def keeps(self) -> bool:
        """Whether messages are kept and numbered."""
        return self.kind != "transient"


def _rules(namespace: Namespace) -> ChannelRules:
    return ChannelRules(*(getattr(namespace, field) for field in ChannelRules._fields))


def namespace_of(channel: str) -> str:
    """The text before the first colon; a channel without one is in `default`."""
    head, colon, _ = channel.partition(":")
    return head if colon else "default"


class Settings:
    """The values in force. `values` is exactly what was logged last, `configured` what commands
    changed: {namespace: {field: value}}."""

    __slots__ = (
        "_default_rules",
        "_rules",
        "configured",
        "configured_max",
        "history_total_bytes",
        "idempotency_age_ms",
        "idempotency_client_age_ms",
        "values",
    )

    def __init__(self) -> None:
        self.configured: dict[str, dict[str, Any]] = {}
        self.configured_max: int | None = None
        self.apply(settings_of(Config()))
        self.values: dict[str, Any] = {}  # nothing is logged yet, so the first start will

    def apply(self, values: dict[str, Any]) -> None:
        """Takes over values as `settings_of` makes them."""
        self.values = values
        self.history_total_bytes: int = values["history_total_bytes"]
        self.idempotency_age_ms: int = values["idempotency_age_ms"]
        self.idempotency_client_age_ms: int = values["idempotency_client_age_ms"]
        self._default_rules = ChannelRules(*values["namespace_defaults"])
        self._rules = {name: ChannelRules(*row) for name, row in values["namespaces"].items()}
        for name in self.configured:
            self._rules[name] = self._configured(name)

    def channel_rules(self, channel: str) -> ChannelRules:
        return self._rules.get(namespace_of(channel), self._default_rules)

    def namespace_rules(self, namespace: str) -> ChannelRules:
        return self._rules.get(namespace, self._default_rules)

    def configure(self, namespace: str, changes: dict[str, Any]) -> None:
        """Changes fields of a namespace; with none, it is as the configuration file says.
        Raises RtError limit_reached."""
        if changes:
            self._check_room(namespace)
            self.configured[namespace] = {**self.configured.get(namespace, {}), **changes}
        else:
            self.configured.pop(namespace, None)
        self._rules[namespace] = self._configured(namespace)

    def _check_room(self, namespace: str) -> None:
        bound = self.configured_max
        if namespace in self.configured or bound is None or len(self.configured) < bound:
            return
        raise RtError(
            LIMIT_REACHED,
            f"{bound} namespaces were configured by commands, the most"
            " (limits.namespaces_configured_max)",
        )

    def restore(self, configured: dict[str, dict[str, Any]]) -> None:
        """What commands changed, from a snapshot."""
        for namespace, changes in configured.items():
            self.configure(namespace, changes)

    def _configured(self, namespace: str) -> ChannelRules:
        row = self.values.get("namespaces", {}).get(namespace)
        base = self._default_rules if row is None else ChannelRules(*row)
        return base._replace(**self.configured.get(namespace, {}))


def settings_of(config: Config) -> dict[str, Any]:
    """The part of a configuration that commands read, as plain values for the log."""
    limits = config.limits
    return {
        "history_total_bytes": limits.history_total_bytes,
        "idempotency_age_ms": limits.idempotency_age_ms,
        "idempotency_client_age_ms": limits.idempotency_client_age_ms,
        "namespace_defaults": list(_rules(Namespace())),
        "namespaces": {
            name: list(_rules(namespace)) for name, namespace in sorted(config.namespaces.items())
        },
    }
