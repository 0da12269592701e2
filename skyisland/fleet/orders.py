"""Orders on a work-queue stream: `Queue` (later/keeping.py) for all islands of a fleet.

    put ─▶ stream ─▶ lane ─▶ held here ─▶ taken ─┬─▶ done     acknowledged, which removes it
                      ▲                          ├─▶ bury     moved to the stream of the dead
                      └── put back, or unheard ──┘

A client's orders are in one of several `lanes`. How many it may have is the servers' to count: they are one
subject, and a subject has a bound.

What an island holds it extends every `EXTEND_S`; what it does not extend for `LEASE_S` is handed to another.
There is no bound on how often (`max_deliver`): the servers would keep an order that reached it, and never
hand it out again. Attempts are counted on the record.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Collection

import msgspec
from msgspec import Struct
from nats.js import api

from skyisland.errors import TooBusy
from skyisland.fleet.lanes import Lane, Lanes, place
from skyisland.fleet.line import Away, Message
from skyisland.fleet.natsline import NatsLine
from skyisland.fleet.streams import Full, Stored, Stream
from skyisland.fleet.subjects import Subjects
from skyisland.fleet.words import is_word, kept
from skyisland.host.recent import Recent
from skyisland.host.tasks import Background, cancel_all
from skyisland.later.calls import Order
from skyisland.later.keeping import NotKept
from skyisland.later.lines import Lines, Room
from skyisland.status import LineState

log = logging.getLogger(__name__)

LEASE_S = 30.0
EXTEND_S = 10.0
"""Two extensions may be lost."""
PASS_ON_S = 1.0
"""What an island holds, and has no place for, it gives to others after this time."""
TICK_S = 0.5
COUNT_S = 5.0
"""Between two counts of what waits in the fleet."""
CALLBACKS_BYTES = 64 << 20
"""Of callbacks that wait: 200,000 of them."""
REMEMBERED = 100_000
"""Orders of this island whose place in the stream is known, so that they can be taken back."""
ACK, NAK, MORE_TIME, TERM = b"+ACK", b"-NAK", b"+WPI", b"+TERM"
"""What a consumer is answered (docs.nats.io, JetStream, consumers)."""


class _Put(Struct, frozen=True, omit_defaults=True):
    """An order as it lies in the stream."""

    order: Order
    due_at: float = 0.0


_put = msgspec.json.Decoder(_Put)


def put_of(data: bytes) -> _Put | None:
    """An order as it lies in the stream; None if no island wrote that. Linear, of a message."""
    try:
        return _put.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None


class _Held(Struct):
    """An order that this island has to itself."""

    order: Order
    seq: int
    """Its number in the stream."""
    reply: str
    """Where it is answered."""
    since: float
    """Monotonic."""
    extended_at: float
    taken: bool = False


class NatsQueue:
    """`Queue` on a stream. `open` comes first, `close` last; `make` when the servers are reached."""

    def __init__(
        self,
        line: NatsLine,
        subjects: Subjects,
        what: str,
        room: Room,
        *,
        keep_dead_s: float,
        replicas: int,
        bounded: bool = True,
    ) -> None:
        """`what`: of which orders, in a word: `calls`. `bounded`: by `room`; else each call has one place."""
        self._line, self._subjects, self._what = line, subjects, what
        self._room, self._bounded = room, bounded
        # A server promises the room of all its streams, and makes none that it has no room for.
        limits: dict[str, object] = {"max_msgs_per_subject": 1, "max_bytes": CALLBACKS_BYTES}
        if bounded:
            limits = {
                "max_msgs": room.orders,
                "max_msgs_per_subject": room.orders_per_client,
                "max_bytes": room.size_bytes,
            }
        self._stream = Stream(
            line,
            api.StreamConfig(
                name=subjects.bucket(what.upper()),
                subjects=[self._of("*", ">")],
                retention=api.RetentionPolicy.WORK_QUEUE,
                storage=api.StorageType.FILE,
                num_replicas=replicas,
                # A full queue refuses what comes; it never drops what was accepted. So it has no max_age.
                discard=api.DiscardPolicy.NEW,
                discard_new_per_subject=True,
                duplicate_window=120.0,
                **limits,
            ),
        )
        self._dead = Stream(
            line,
            api.StreamConfig(
                name=subjects.bucket(f"DEAD_{what.upper()}"),
                subjects=[subjects.kept("dead", what, "*")],
                storage=api.StorageType.FILE,
                num_replicas=replicas,
                max_msgs_per_subject=1,
                max_age=keep_dead_s,
                max_bytes=limits["max_bytes"],
                duplicate_window=min(120.0, keep_dead_s),
            ),
        )
        self._lanes = Lanes(line, self._stream, self._hold)
        self._lines = Lines(room)
        self._held: dict[str, _Held] = {}
        self._placed: Recent[str, int] = Recent(REMEMBERED)
        """The numbers of orders that this island put."""
        self._resting = False
        self._background = Background()
        self._ticking: asyncio.Task[None] | None = None

    @property
    def streams(self) -> tuple[Stream, ...]:
        return self._stream, self._dead

    # Life

    async def open(self) -> None:
        """Listen for orders."""
        await self._lanes.open()
        self._ticking = asyncio.create_task(self._tick())

    async def make(self) -> None:
        """Make the streams and their consumers, if they are not there.

        Raises:
            Away
        """
        for stream in self.streams:
            await stream.make()
        await self._lanes.make(lambda lane: self._of(lane, ">"), LEASE_S)

    async def close(self) -> None:
        """Give all that is held to others, and end."""
        await cancel_all(self._ticking)
        await self.rest()
        for call_id in [*self._held]:
            self._give_back(call_id)
        await self._lanes.close()
        await self._background.drain()

    def _of(self, lane: str, *client: str) -> str:
        return self._subjects.kept(self._what, lane, *client)

    def _subject(self, order: Order) -> str:
        client, lane = place(order.client)
        return self._of(str(lane), client) if self._bounded else self._of(str(lane), client, order.id)

    # What waits

    @property
    def waiting(self) -> int:
        return self._lines.waiting + self._lanes.waiting

    def follow(self, wake: Callable[[], None]) -> None:
        self._lanes.wake = wake

    def due_at(self) -> float | None:
        return self._lines.due_at()

    async def put(self, order: Order, due_at: float = 0.0) -> None:
        await self._put(order, due_at)

    async def _put(self, order: Order, due_at: float = 0.0, again: str = "") -> None:
        """`again`: an id for an order that was there before."""
        if not is_word(order.id):
            raise NotKept(f"{order.id[:64]!r} can be no call's id")
        if order.id in self._held:
            return
        with kept():
            if (seq := self._placed.get(order.id)) is not None and await self._stream.at(seq) is not None:
                return
            lane = self._lanes.of(order.client)
            lane.waiting += 1
            try:
                content = msgspec.json.encode(_Put(order, due_at))
                # Two islands that accept one call at the same moment, as a schedule's, accept it once.
                self._placed[order.id] = await self._stream.publish_once(
                    self._subject(order), content, again or order.id
                )
            except Full as full:
                lane.waiting -= 1
                self._refuse(str(full))
            except BaseException:
                lane.waiting -= 1
                raise

    def _refuse(self, why: str) -> None:
        """Raises: TooBusy, in the words of one machine; nothing for a call that has its place already."""
        if "per subject" in why:
            if not self._bounded:
                return
            reason = f"{self._room.orders_per_client} of your calls wait already"
        elif "messages" in why:
            reason = f"{self._room.orders} calls wait already"
        elif "bytes" in why:
            reason = "the requests that wait take all the room there is"
        else:
            raise NotKept(f"the fleet's servers keep nothing more: {why}", retry_after_s=5)
        raise TooBusy(f"{reason}; send it again when some of them are done", retry_after_s=5)

    # Taking

    async def take(self, now: float, full: Collection[str] = ()) -> Order | None:
        taken = self._lines.take(now, full)
        if taken is None and not self._resting:
            await self._lanes.look(full)
            taken = self._lines.take(now, full)
        self._lanes.want(frozenset(full) if taken is None and not self._resting else None)
        if taken is None:
            return None
        held = self._held[taken]
        held.taken = True
        return held.order

    def _hold(self, lane: Lane, message: Message) -> bool:
        """Have an order to itself; False if there is nothing more to take for it."""
        put = put_of(message.data)
        if put is None or not is_word(put.order.id) or message.subject != self._subject(put.order):
            log.error("an order on %s is none that an island wrote; it is dropped", message.subject)
            self._say(message.reply, TERM)
            return False
        order = put.order
        seq, lane.waiting = _numbers(message.reply)
        now, delay_s = time.monotonic(), put.due_at - time.time()
        if self._resting or delay_s > 0:
            self._say(message.reply, _nak(delay_s))
            return False
        if (held := self._held.get(order.id)) is not None:
            # Its lease ended, or it is there twice; it runs here, and the servers' last word is answered.
            if held.seq != seq:
                self._say(held.reply, ACK)
            held.seq, held.reply, held.extended_at = seq, message.reply, now
            return False
        self._held[order.id] = _Held(order, seq, message.reply, now, now)
        self._lines.reserve(order.id, order.client, order.size, bounded=False)
        self._lines.wait(order.id, put.due_at)
        return True

    def _say(self, reply: str, word: bytes) -> None:
        """Tell the servers what becomes of an order. If they do not hear it, its lease ends, and who gets it
        then finds on its record what became of it."""

        async def say() -> None:
            with contextlib.suppress(Away):
                await self._line.publish(reply, word)

        self._background.start(say())

    async def _tick(self) -> None:
        """Extend what is held, pass on what there is no place for, ask where nothing is asked."""
        counted_at = 0.0
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            await self._lanes.ask_again()
            if self._line.state is not LineState.joined:
                continue
            for call_id, held in [*self._held.items()]:
                if not held.taken and now - held.since > PASS_ON_S:
                    self._give_back(call_id)
                elif now - held.extended_at > EXTEND_S:
                    held.extended_at = now
                    self._say(held.reply, MORE_TIME)
            if now - counted_at > COUNT_S:
                counted_at = now
                await self._lanes.count()

    # What becomes of it

    async def put_back(self, call_id: str, due_at: float) -> None:
        held = self._held.get(call_id)
        if held is None:
            return
        delay_s = due_at - time.time()
        if delay_s > 0 or self._resting:
            self._give_back(call_id, delay_s)
            return
        held.taken, held.since = False, time.monotonic()
        self._lines.wait(call_id, due_at)

    def hurry(self, call_id: str) -> None:
        """Nothing: what waits for a time is held by no island, and the servers hand it out at that time."""

    def _give_back(self, call_id: str, delay_s: float = 0.0) -> None:
        """Have the servers hand it out again, to whoever asks."""
        self._answer(call_id, _nak(delay_s))

    def _answer(self, call_id: str, word: bytes) -> bool:
        """Say what becomes of an order, which is held no more; False if it was not."""
        held = self._held.pop(call_id, None)
        if held is None:
            return False
        self._lines.leave(call_id)
        self._placed.pop(call_id)
        self._say(held.reply, word)
        return True

    async def done(self, call_id: str) -> None:
        if not is_word(call_id):
            return
        if self._answer(call_id, ACK):
            return
        with kept():
            if (seq := self._placed.get(call_id)) is not None:
                await self._stream.delete(seq)
                self._placed.pop(call_id)
            await self._dead.purge(self._grave(call_id))

    async def bury(self, call_id: str) -> None:
        if not is_word(call_id):
            return
        held = self._held.get(call_id)
        with kept():
            if held is not None:
                await self._dead.publish(self._grave(call_id), msgspec.json.encode(_Put(held.order)))
                self._answer(call_id, TERM)
            elif (seq := self._placed.get(call_id)) is not None:
                # One that another island holds, or that waits and came from one, is buried by who takes it:
                # its record says that it is over.
                if (stored := await self._stream.at(seq)) is not None:
                    await self._dead.publish(self._grave(call_id), stored.body)
                    await self._stream.delete(seq)
                self._placed.pop(call_id)

    async def revive(self, call_id: str) -> bool:
        if call_id in self._held or not is_word(call_id):
            return False
        with kept():
            stored: Stored | None = await self._dead.last(self._grave(call_id))
            if stored is None or (put := put_of(stored.body)) is None:
                return False
            await self._put(put.order, again=f"{call_id}.{stored.seq}")
            await self._dead.purge(self._grave(call_id))
        return True

    def _grave(self, call_id: str) -> str:
        return self._subjects.kept("dead", self._what, call_id)

    async def rest(self) -> None:
        self._resting = True
        self._lanes.want(None)
        for call_id, held in [*self._held.items()]:
            if not held.taken:
                self._give_back(call_id)


def _numbers(reply: str) -> tuple[int, int]:
    """A message's number in its stream, and how many wait behind it; both are in the subject of its answer,
    which the servers write."""
    words = reply.split(".")
    # The form with the account in it (2.15) has two words more in front, and one behind.
    return (int(words[5]), int(words[8])) if len(words) == 9 else (int(words[7]), int(words[10]))


def _nak(delay_s: float) -> bytes:
    """The word that an order is given back, to be handed out after a time."""
    return NAK if delay_s <= 0 else NAK + b" " + json.dumps({"delay": int(delay_s * 1e9)}).encode()
