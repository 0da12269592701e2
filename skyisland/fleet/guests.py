"""Calls of other islands that run here.

A call is taken if there is a place for it at once, refused otherwise; it never goes on to a third island.
While it runs, whoever sent it hears so every `BEAT_S`. It is killed when its caller leaves, or when the
island that sent it is gone or cannot be reached: then nobody waits for it, and it counts as lost over there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from skyisland.errors import IslandError
from skyisland.fleet.errands import BEAT_S, LOST_S, CallFrame, Kind, ResultFrame, Word, words_of
from skyisland.fleet.frames import BadFrame, pack, unpack
from skyisland.fleet.line import Away, Line, Listening, Message
from skyisland.fleet.members import Members
from skyisland.fleet.subjects import Subjects
from skyisland.host.recent import Recent
from skyisland.host.tasks import Background
from skyisland.rooms import Home

log = logging.getLogger(__name__)

ATTEMPTS_KEPT = 10_000
"""Attempts that are remembered, so that none is taken twice: more than come within `LOST_S`."""
EARLY_S = 1.0
"""A clock may be read so much too early, as far as pulses tell what the other one shows."""


class Guests:
    """Takes calls from other islands, while it is open."""

    def __init__(self, subjects: Subjects, line: Line, members: Members) -> None:
        self._subjects, self._line, self._members = subjects, line, members
        self._home: Home | None = None
        self._listening: Listening | None = None
        self._running: dict[str, asyncio.Task[None]] = {}
        """By the id of the call."""
        self._background = Background()
        self._attempts: Recent[str, bool] = Recent(ATTEMPTS_KEPT)

    async def open(self, home: Home) -> None:
        """Take calls for this island."""
        self._home = home
        await self._line.listen(self._subjects.hung_up, self._hear_hang_up)
        self._listening = await self._line.listen(self._subjects.at(self._subjects.node, "call"), self._hear)

    async def close(self) -> None:
        """Take no more; those that run come to their end. May be repeated."""
        self._home = None
        if self._listening is not None:
            await self._listening.end()

    def _hear_hang_up(self, message: Message) -> None:
        if len(message.data) < 200 and (task := self._running.get(message.data.decode(errors="replace"))):
            task.cancel()

    def _hear(self, message: Message) -> None:
        try:
            frame = unpack(message.data, CallFrame, most_bytes=self._line.largest_bytes)
        except BadFrame as bad:
            log.warning("a call of another island is not taken: %s", bad.message)
            return
        guest = _Guest(self._line, message.reply, self._subjects.node)
        if why := self._refusal(frame, message.reply):
            self._background.start(guest.refuse(why))
            return
        assert self._home is not None  # noqa: S101 - else the call is refused
        task = asyncio.create_task(self._serve(guest, frame, self._home))
        self._running[frame.id] = task
        task.add_done_callback(lambda _: self._running.pop(frame.id, None))

    def _refusal(self, frame: CallFrame, reply: str) -> str:
        """Why a call is not run here; empty if it is."""
        sender = self._members.live(frame.sender)
        if sender is None or not reply.startswith(f"_INBOX.{frame.sender}."):
            return "its sender is no island of the fleet"
        age_s = time.time() + sender.ahead_s - frame.sent_at
        if not -EARLY_S < age_s < LOST_S or reply in self._attempts or frame.id in self._running:
            return "it came before, or too late"
        self._attempts[reply] = True
        if self._home is None or frame.sender == self._subjects.node:
            return "it is not for this island"
        return "" if self._home.has_room(frame.client, ip4=frame.request.ip4) else "busy"

    async def _serve(self, guest: _Guest, frame: CallFrame, home: Home) -> None:
        beating = asyncio.create_task(self._beat(guest, frame))
        try:
            try:
                ran = await home.receive(frame.errand, guest)
                result = ResultFrame(outcome=ran.outcome, timings=ran.timings, jail=ran.jail, warm=ran.warm)
            except Exception as error:
                if not isinstance(error, IslandError):
                    log.exception("a call of the island %s failed", frame.sender)
                if not guest.began:
                    await guest.refuse(str(error))
                    return
                result = ResultFrame.of_error(error)
            await guest.tell(result)
        except Away:
            log.warning("what came of call %s could not be told to %s", frame.id, frame.sender)
        finally:
            beating.cancel()

    async def _beat(self, guest: _Guest, frame: CallFrame) -> None:
        """Say that the call is alive, and look whether anybody waits for it."""
        said_at = time.monotonic()
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                await guest.say(Kind.alive)
                said_at = time.monotonic()
            except Away:
                pass
            if self._members.is_silent(frame.sender) or time.monotonic() - said_at > LOST_S:
                log.warning("call %s is killed: the island %s is not heard of", frame.id, frame.sender)
                self._running[frame.id].cancel()
                return


class _Guest:
    """A call that runs here, to whoever waits for it (`rooms.Visit`)."""

    def __init__(self, line: Line, reply: str, node: str) -> None:
        self._line, self._reply, self._node = line, reply, node
        self.began = False

    async def begins(self) -> None:
        await self.say(Kind.began)
        self.began = True
        await asyncio.sleep(0)  # so that it is on its way before the process hears anything

    async def refuse(self, why: str) -> None:
        with contextlib.suppress(Away):
            await self.say(Kind.refused, why)

    async def say(self, kind: Kind, why: str = "") -> None:
        await self._line.publish(self._reply, pack(Word(kind=kind, node=self._node, why=why)))

    async def tell(self, result: ResultFrame) -> None:
        for word in words_of(result, self._node):
            await self._line.publish(self._reply, word)
