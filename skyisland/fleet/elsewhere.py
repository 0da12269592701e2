"""Where a call runs that has no room here (`rooms.Elsewhere`).

1. One of the two homes of its binary that says it has a place: there the function is warm.
2. Another one of this platform and version of Go that says so, by chance.
3. None: it waits here.

An island that is asked either begins the call, or refuses and has done nothing. What is not heard of in time
was not begun, or is lost: then its caller is told, and by which island.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Iterator

from msgspec import Struct, field

from skyisland.errors import NodeLost
from skyisland.fleet.errands import LOST_S, RESULT_BYTES, CallFrame, Kind, Word, ran_of
from skyisland.fleet.frames import BadFrame, pack, unpack
from skyisland.fleet.line import Away, Line, Message
from skyisland.fleet.members import Member, Members
from skyisland.fleet.subjects import Subjects
from skyisland.rooms import Errand, Ran

log = logging.getLogger(__name__)

MORE_ASKED = 2
"""Islands that are asked beside the homes. What they said they have may be taken by now; a refusal takes a
third of a millisecond, and the queue here is no worse."""
LATE_S = 0.05
"""What came while this process stood still is read first, before anybody is called lost."""
READ_AT_ONCE_BYTES = 1 << 20
"""A longer result is read on a thread: this much takes half a millisecond."""


class _NotTaken(Exception):
    """Nothing of it was run there."""


class _Silent(_NotTaken):
    """And nothing was heard, so that it may have stopped."""


class _Talk(Struct):
    """With the island that was asked to run a call."""

    done: asyncio.Future[bytes]
    heard_at: float
    """Monotonic: when the last word came."""
    node: str
    began: bool = False
    parts: list[bytes] = field(default_factory=list)
    size_bytes: int = 0


class Forwarding:
    """Sends calls to other islands, and hears what becomes of them."""

    def __init__(self, subjects: Subjects, line: Line, members: Members, platform: str) -> None:
        self._subjects, self._line, self._members, self._platform = subjects, line, members, platform
        self._talks: dict[str, _Talk] = {}
        """By the last word of the subject that their answers come on."""

    async def open(self) -> None:
        """Hear answers, as soon as the servers can be reached."""
        await self._line.listen(f"{self._subjects.inbox}.call.*", self._hear)

    async def run(self, errand: Errand) -> Ran | None:
        for node in self._candidates(errand):
            try:
                ran = await self._ask(node, errand)
            except _Silent:
                return None  # its caller has waited long enough for others
            except (_NotTaken, Away):
                continue
            except NodeLost as lost:
                log.warning("call %s: %s", errand.id, lost.message)
                if not errand.repeatable:
                    raise
            else:
                return ran
        return None

    def _candidates(self, errand: Errand) -> Iterator[str]:
        """Islands to ask, one after another."""
        able = {
            member.pulse.node: member
            for member in self._members.others()
            if self._is_alike(member) and _has_room(member, errand)
        }
        homes = [node for node in self._members.homes(errand.key, self._platform) if node in able]
        yield from homes
        # By chance, and not those with most room: pulses are a second old, and all islands that are full
        # would ask the same few. With 100 islands, calls are refused for that (docs/fleet-scale.md).
        rest = sorted(able.keys() - homes)
        yield from random.sample(rest, min(MORE_ASKED, len(rest)))

    def _is_alike(self, member: Member) -> bool:
        """Whether an island runs the same binaries."""
        own, other = self._members.get(self._subjects.node), member.pulse
        return other.platform == self._platform and (own is None or own.go_version == other.go_version)

    # One talk

    async def _ask(self, node: str, errand: Errand) -> Ran:
        frame = pack(CallFrame.of(errand, self._subjects.node, time.time()))
        if len(frame) > self._line.largest_bytes:
            raise _NotTaken
        token = secrets.token_hex(12)
        loop = asyncio.get_running_loop()
        talk = self._talks[token] = _Talk(loop.create_future(), loop.time(), node)
        try:
            reply = f"{self._subjects.inbox}.call.{token}"
            await self._line.publish(self._subjects.at(node, "call"), frame, reply=reply)
            with self._members.sent_to(node):
                data = await self._hear_out(talk)
        except (asyncio.CancelledError, NodeLost, _Silent):
            await self._hang_up(errand.id)
            raise
        finally:
            del self._talks[token]
        try:
            if len(data) <= READ_AT_ONCE_BYTES:
                return ran_of(data, node)
            return await asyncio.to_thread(ran_of, data, node)
        except BadFrame as bad:
            raise NodeLost(
                f"the island {node} ran the call and answered with {bad.message}", node=node
            ) from bad

    async def _hear_out(self, talk: _Talk) -> bytes:
        """The result's bytes.

        Raises:
            _NotTaken, _Silent, NodeLost
        """
        loop = asyncio.get_running_loop()
        while not talk.done.done():
            left_s = talk.heard_at + LOST_S - loop.time()
            if left_s <= 0:
                heard_at = talk.heard_at
                await asyncio.wait({talk.done}, timeout=LATE_S)
                if talk.heard_at == heard_at and not talk.done.done():
                    raise self._lost(talk)
            else:
                await asyncio.wait({talk.done}, timeout=left_s)
        return talk.done.result()

    def _lost(self, talk: _Talk) -> Exception:
        if not talk.began:
            return _Silent()
        return NodeLost(
            f"the island {talk.node} began the call and was not heard of for {LOST_S:g} s; it may have run, "
            "wholly or in part; with an Idempotency-Key it would have been run again",
            node=talk.node,
        )

    async def _hang_up(self, call_id: str) -> None:
        """Nobody waits for the call any more."""
        try:
            await self._line.publish(self._subjects.hung_up, call_id.encode())
        except Away:
            log.info("call %s: its caller left while the fleet was away; it is killed where it runs", call_id)

    def _hear(self, message: Message) -> None:
        talk = self._talks.get(message.subject.rpartition(".")[2])
        if talk is None or talk.done.done():
            return
        if message.nobody:
            talk.done.set_exception(_NotTaken())
            return
        try:
            word = unpack(message.data, Word)
        except BadFrame as bad:
            log.warning("%s answered a call with %s", talk.node, bad.message)
            return
        if word.node != talk.node:
            return  # it is not the one that was asked
        talk.heard_at = asyncio.get_running_loop().time()
        match word.kind:
            case Kind.refused:
                talk.done.set_exception(_NotTaken())
            case Kind.began:
                talk.began = True
            case Kind.part | Kind.done:
                talk.parts.append(word.data)
                talk.size_bytes += len(word.data)
                if talk.size_bytes > RESULT_BYTES:
                    talk.done.set_exception(
                        NodeLost(
                            f"the island {talk.node} ran the call and answered with more than {RESULT_BYTES} "
                            "bytes",
                            node=talk.node,
                        )
                    )
                elif word.kind is Kind.done:
                    talk.done.set_result(b"".join(talk.parts))


def _has_room(member: Member, errand: Errand) -> bool:
    vacancy = member.pulse.vacancy
    addresses = vacancy.free_addresses > 0 or not errand.request.ip4
    return member.free > 0 and addresses and not vacancy.draining
