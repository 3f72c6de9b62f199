"""What of the configuration the state depends on.

It is state too: at start a changed value is logged as a record, so that replay meets every
command with the values that were in force when it was first applied.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from rtserver.config import Config, Namespace

__all__ = ["ChannelRules", "Settings", "namespace_of", "settings_of"]


class ChannelRules(NamedTuple):
    """How long the channels of a namespace remember; see config.Namespace for units."""

    history_count: int
    history_bytes: int
    history_ms: int
    idle_ms: int


def _rules(namespace: Namespace) -> ChannelRules:
    return ChannelRules(
        namespace.history_count,
        namespace.history_bytes,
        namespace.history_ms,
        namespace.idle_ms,
    )


def namespace_of(channel: str) -> str:
    """The text before the first colon; a channel without one is in `default`."""
    head, colon, _ = channel.partition(":")
    return head if colon else "default"


class Settings:
    """The values in force. `values` is exactly what was logged last."""

    __slots__ = (
        "_default_rules",
        "_rules",
        "history_total_bytes",
        "idempotency_age_ms",
        "idempotency_client_age_ms",
        "values",
    )

    def __init__(self) -> None:
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

    def channel_rules(self, channel: str) -> ChannelRules:
        return self._rules.get(namespace_of(channel), self._default_rules)


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
