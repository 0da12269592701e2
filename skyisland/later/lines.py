"""Who is next: each client's orders in a line, the lines in turns, an order not before it is due.

All in memory and without I/O, for drivers that keep the orders themselves somewhere. An order is `reserved`
while it is being written, so that bounds hold for those who come at one time.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Collection

from msgspec import Struct

from skyisland.errors import TooBusy


class Room(Struct, frozen=True, kw_only=True):
    """How much may wait."""

    orders: int
    orders_per_client: int
    size_bytes: int
    size_bytes_per_client: int


class _Place(Struct):
    client: str
    size: int
    due_at: float | None = None
    """None while it is being written, or is taken."""
    number: int = 0
    """Of its latest entry among those that are not due."""


class Lines:
    """The places of orders, by their ids."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._places: dict[str, _Place] = {}
        self._count: Counter[str] = Counter()
        self._size: Counter[str] = Counter()
        self._total_bytes = 0
        self._due: list[tuple[float, int, str]] = []
        """Those that are not due, the next one first."""
        self._lines: dict[str, deque[str]] = {}
        """Those that are, by client; the client whose turn is next comes first."""
        self._number = 0
        self.waiting = 0
        """How many wait and are not taken."""

    def __contains__(self, call_id: str) -> bool:
        return call_id in self._places

    def reserve(self, call_id: str, client: str, size: int, *, bounded: bool = True) -> None:
        """Make a place for one that cannot be taken yet. `bounded`: if there is room for it.

        Raises:
            TooBusy
        """
        if bounded:
            self._check(client, size)
        self._places[call_id] = _Place(client, size)
        self._count[client] += 1
        self._size[client] += size
        self._total_bytes += size

    def _check(self, client: str, size: int) -> None:
        room = self._room
        if self._count[client] >= room.orders_per_client:
            reason = f"{room.orders_per_client} of your calls wait already"
        elif self._size[client] + size > room.size_bytes_per_client:
            reason = "the requests of yours that wait take their share of the room"
        elif len(self._places) >= room.orders:
            reason = f"{room.orders} calls wait already"
        elif self._total_bytes + size > room.size_bytes:
            reason = "the requests that wait take all the room there is"
        else:
            return
        raise TooBusy(f"{reason}; send it again when some of them are done", retry_after_s=5)

    def size_of(self, call_id: str) -> int:
        """Bytes of an order that has a place."""
        return self._places[call_id].size

    def wait(self, call_id: str, due_at: float) -> None:
        """From now on it may be taken, at this time or later."""
        place = self._places[call_id]
        if place.due_at is None:
            self.waiting += 1
        place.due_at = due_at
        self._number += 1
        place.number = self._number
        heapq.heappush(self._due, (due_at, self._number, call_id))

    def hurry(self, call_id: str, now: float) -> None:
        """One that waits for a later time may be taken now."""
        place = self._places.get(call_id)
        if place is not None and place.due_at is not None and place.due_at > now:
            self.wait(call_id, now)

    def take(self, now: float, full: Collection[str] = ()) -> str | None:
        """The next one; None if none is due, or only of clients in `full`."""
        while self._due and self._due[0][0] <= now:
            entry = heapq.heappop(self._due)
            if self._stands(entry):
                call_id = entry[2]
                self._lines.setdefault(self._places[call_id].client, deque()).append(call_id)
        client = next((one for one in self._lines if one not in full), None)
        if client is None:
            return None
        line = self._lines.pop(client)
        taken = line.popleft()
        if line:  # its next turn comes after everybody else's
            self._lines[client] = line
        self._places[taken].due_at = None
        self.waiting -= 1
        return taken

    def due_at(self) -> float | None:
        """When the next one is due; 0 if one is."""
        if self._lines:
            return 0.0
        while self._due and not self._stands(self._due[0]):
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def _stands(self, entry: tuple[float, int, str]) -> bool:
        """Whether an entry of `_due` is its order's latest."""
        place = self._places.get(entry[2])
        return place is not None and place.number == entry[1]

    def leave(self, call_id: str) -> bool:
        """Take its place away; False if it has none."""
        place = self._places.pop(call_id, None)
        if place is None:
            return False
        self._size[place.client] -= place.size
        self._total_bytes -= place.size
        self._count[place.client] -= 1
        if not self._count[place.client]:
            del self._count[place.client], self._size[place.client]
        if place.due_at is not None:
            self.waiting -= 1
            line = self._lines.get(place.client)
            if line is not None and call_id in line:
                line.remove(call_id)
                if not line:
                    del self._lines[place.client]
        return True
