"""Held messages against a plain list of what waits for what."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rtserver.session.held import Held
from rtserver.state.channels import Message

channels = st.sampled_from("ab")


class HeldMachine(RuleBasedStateMachine):
    """A message leaves when it and all before it on its channel may, never in an open turn."""

    def __init__(self):
        super().__init__()
        self.held = Held()
        self.waiting = {"a": [], "b": []}  # (offset, seq to sync; 0: none; None: not written)
        self.offsets = {"a": 0, "b": 0}
        self.seq = 0
        self.synced = 0

    def message(self, channel):
        self.offsets[channel] += 1
        return Message(channel, self.offsets[channel], 0, b"", None, None)

    @rule(channel=channels, synced=st.booleans())
    def keep(self, channel, synced):
        message = self.message(channel)
        self.held.keep(message, synced=synced)
        self.waiting[channel].append([message.offset, None, synced])

    @rule(channel=channels)
    def keep_until(self, channel):
        if any(entry[1] is None for entry in self.waiting[channel]):
            return
        message = self.message(channel)
        self.held.keep_until(message, self.seq)
        self.waiting[channel].append([message.offset, self.seq, True])

    @rule()
    def write(self):
        self.seq += 1
        self.held.written(self.seq)
        for waiting in self.waiting.values():
            for entry in waiting:
                if entry[1] is None:
                    entry[1] = self.seq if entry[2] else 0

    @rule(behind=st.integers(0, 3))
    def sync(self, behind):
        self.synced = max(self.synced, self.seq - behind)
        expected = {}
        for channel, waiting in self.waiting.items():
            left = 0
            while left < len(waiting) and waiting[left][1] is not None:
                if waiting[left][1] > self.synced:
                    break
                left += 1
            if left:
                expected[channel] = [entry[0] for entry in waiting[:left]]
                del waiting[:left]
        taken = {run[0].channel: [one.offset for one in run] for run in self.held.take(self.synced)}
        assert taken == expected

    @invariant()
    def knows_the_first(self):
        for channel, waiting in self.waiting.items():
            assert (channel in self.held) == bool(waiting)
            assert self.held.first_offset(channel) == (waiting[0][0] if waiting else None)


HeldMachine.TestCase.settings = settings(max_examples=150, deadline=None)
TestHeld = HeldMachine.TestCase
