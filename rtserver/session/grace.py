"""Places in queues that hang on connections: who has been gone for too long gives hers up.

A user who took her place herself keeps it for `queue.grace_ms` after the last sign of life: the
end of her last connection of any kind, event streams and long polls among them, or, where she has
none, her last `sale.join` or `sale.place` over HTTP. So whoever only calls keeps the place by
calling, and a grace of 0 keeps places for those who stay connected. A back end that takes a place
for a user, or asks for it, is no sign of her; the place that it took stays whoever is connected.

Who is connected is volatile. After a restart nobody is, and all get one fresh grace period (at
least `presence_grace_ms`); then those who wait are gone through in slices, and whoever was not seen
since gives way. The turn issues what follows as a logged command, at most a slice of users each;
without room in the log they wait here. Times are those of turns.

Costs: O(1) a disconnect for each sale with places of this kind; some 200 bytes for each user who
waits and is not connected; nothing for the others.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from rtserver.limits import Limits
from rtserver.session.people import People
from rtserver.state.sales.room import WaitingRoom
from rtserver.state.sales.sale import Sale
from rtserver.state.sales.sales import Sales
from rtserver.structs.recency import RecencyList
from rtserver.structs.sharded_map import ShardedMap

__all__ = ["GivenUp", "Grace"]

_RECKON_MS = 1_000  # between two looks at all sales, whose terms may change


class _Absent:
    """A user who waits and is not connected, since when."""

    __slots__ = ("since", "touched_after", "touched_before", "user")

    def __init__(self, user: str) -> None:
        self.user = user
        self.since = 0
        self.touched_before: _Absent | None = None  # these two belong to the RecencyList
        self.touched_after: _Absent | None = None


class _Line:
    """The queue of one sale, as far as it hangs on connections. `walking`: those who waited at the
    restart are gone through, up to the key `walked` so far."""

    __slots__ = ("absent", "by_user", "number", "walked", "walking")

    def __init__(self, number: int, *, walking: bool) -> None:
        self.number = number
        self.by_user: ShardedMap[_Absent] = ShardedMap()
        self.absent: RecencyList[_Absent] = RecencyList()  # by when they were seen last
        self.walking = walking
        self.walked: int | None = None

    def note(self, user: str, now: int) -> None:
        absent = self.by_user.get(user)
        if absent is None:
            absent = _Absent(user)
            self.by_user.insert(user, absent)
        absent.since = now
        self.absent.touch(absent)

    def forget(self, absent: _Absent) -> None:
        self.by_user.pop(absent.user)
        self.absent.remove(absent)


class GivenUp(NamedTuple):
    """Users whose places in a sale are to be given up. `page`: (the last key, whether there are
    more) of those who were gone through for that."""

    sale: Sale
    users: list[str]
    page: tuple[int | None, bool] | None


class Grace:
    """All of them."""

    __slots__ = (
        "_fresh_ms",
        "_lines",
        "_next_due",
        "_people",
        "_reckoned_at",
        "_restarted_ms",
        "_sales",
    )

    def __init__(self, sales: Sales, people: People, limits: Limits) -> None:
        self._sales = sales
        self._people = people
        self._fresh_ms = limits.presence_grace_ms
        self._lines: OrderedDict[int, _Line] = OrderedDict()  # by the number of the sale
        self._restarted_ms = 0
        self._next_due: int | None = None
        self._reckoned_at = 0

    def restarted(self, now: int) -> None:
        """Nobody is connected yet, and whoever waits has a fresh grace period."""
        self._restarted_ms = now
        for sale in self._sales.all():
            if sale.room is not None and len(sale.room):
                self._lines[sale.number] = _Line(sale.number, walking=True)
        self._reckon(now)

    # --- signs of life ---

    def left(self, user: str, now: int) -> None:
        """The last connection of a user ended."""
        for line in self._lines.values():
            sale = self._sales.of_number(line.number)
            if sale is not None and sale.room is not None and sale.room.is_tied(user):
                self._note(line, sale.room, user, now)

    def seen(self, sale: Sale, user: str, now: int) -> None:
        """The user herself asked for a place in the queue, or where it is."""
        room = sale.room
        if room is None or not room.is_tied(user):
            return
        line = self._lines.get(sale.number)
        if line is None:
            line = self._lines[sale.number] = _Line(sale.number, walking=False)
        if not self._people.is_connected(user):
            self._note(line, room, user, now)

    def _note(self, line: _Line, room: WaitingRoom, user: str, now: int) -> None:
        line.note(user, now)
        due = now + room.terms.grace_ms
        if self._next_due is None or due < self._next_due:
            self._next_due = due

    # --- whose time is over ---

    def next_due(self) -> int | None:
        """When there may be somebody to give up."""
        return self._next_due

    def due(self, now: int, users_max: int) -> GivenUp | None:
        """Some of those who were gone for too long, of one sale; they are due until `done`. At most
        so many users are looked at."""
        if not self._lines:
            return None
        is_due = self._next_due is not None and self._next_due <= now
        if not is_due and now < self._reckoned_at + _RECKON_MS:
            return None
        for line in list(self._lines.values()):
            sale = self._running(line)
            if sale is None:
                users_max -= self._drop(line, users_max)
            else:
                found, looked = self._look(line, sale, now, users_max)
                if found.users:
                    return found
                self.done(found)
                users_max -= looked
            if users_max <= 0:
                return None  # and it is still due
        self._reckon(now)
        return None

    def done(self, given_up: GivenUp) -> None:
        """Their places are given up."""
        number = given_up.sale.number
        line = self._lines[number]
        for user in given_up.users:
            absent = line.by_user.get(user)
            if absent is not None:
                line.forget(absent)
        if given_up.page is not None:
            line.walked, line.walking = given_up.page
        self._lines.move_to_end(number)  # the others have their turn

    def _look(self, line: _Line, sale: Sale, now: int, users_max: int) -> tuple[GivenUp, int]:
        """Who is to be given up, and how many were looked at."""
        room = sale.room
        assert room is not None, "a line has a room"
        users: list[str] = []
        looked = 0
        gone_since = now - room.terms.grace_ms
        for absent in line.absent:
            if absent.since > gone_since or looked == users_max:
                break
            looked += 1
            if self._is_gone(room, absent.user):
                users.append(absent.user)
            else:
                line.forget(absent)
        page = None
        if line.walking and looked < users_max and now >= self._walk_due(room):
            rows = room.page(line.walked, users_max - looked)
            page = (rows[-1][1] if rows else None, len(rows) == users_max - looked)
            looked += len(rows)
            users += [
                user for user, _ in rows if user not in line.by_user and self._is_gone(room, user)
            ]
        return GivenUp(sale, users, page), looked

    def _is_gone(self, room: WaitingRoom, user: str) -> bool:
        return room.is_tied(user) and not self._people.is_connected(user)

    def _running(self, line: _Line) -> Sale | None:
        """The sale of a line; None where nobody waits for anything any more."""
        sale = self._sales.of_number(line.number)
        return None if sale is None or sale.closed or sale.room is None else sale

    def _drop(self, line: _Line, users_max: int) -> int:
        """Forgets a slice of a line that is over; how many users that was."""
        dropped = 0
        while dropped < users_max and (absent := line.absent.oldest()) is not None:
            line.forget(absent)
            dropped += 1
        if not len(line.absent):
            del self._lines[line.number]
        return dropped

    def _walk_due(self, room: WaitingRoom) -> int:
        return self._restarted_ms + max(room.terms.grace_ms, self._fresh_ms)

    def _reckon(self, now: int) -> None:
        """Finds out anew what is due next."""
        self._reckoned_at = now
        dues = [self._due_at(line) for line in list(self._lines.values())]
        self._next_due = min((due for due in dues if due is not None), default=None)

    def _due_at(self, line: _Line) -> int | None:
        """When a line has something due; one in which nobody waits is dropped."""
        sale = self._running(line)
        if sale is None or sale.room is None:
            return self._reckoned_at
        oldest = line.absent.oldest()
        if oldest is None and not len(sale.room):
            del self._lines[line.number]
            return None
        dues = [] if oldest is None else [oldest.since + sale.room.terms.grace_ms]
        if line.walking:
            dues.append(self._walk_due(sale.room))
        return min(dues, default=None)
