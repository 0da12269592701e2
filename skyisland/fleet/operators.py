"""The way of an operator's question to other nodes, and of their answers.

    one node      request on node.<b>.admin.<a>
    all nodes     the same to all on admin.<a>, and what comes within `GATHER_S`; who is silent is named

The asking node's name is the end of the subject: the servers let nobody else publish there, so the node that
answers knows who asks. A long answer is packed.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from typing import Protocol

from msgspec import structs

from skyisland.errors import NodeNotFound, NodeSilent
from skyisland.fleet.frames import BadFrame, pack, unpack
from skyisland.fleet.line import Away, Line, Message, Nobody, gather, request, serve
from skyisland.fleet.subjects import Subjects
from skyisland.nodes import Answer, Everybody, Question, Told

GATHER_S = 0.3
"""How long all nodes have for an answer; a list takes some milliseconds."""
ASK_S = 25.0
"""How long one node has: less than a client of the API waits."""
PACKED_BYTES = 16 << 10
"""A longer answer is packed: JSON becomes a tenth."""
MOST_BYTES = 16 << 20
"""The longest answer, unpacked: three times the largest page."""
QUESTION_BYTES = 96 << 10
"""The longest question: a body of 64 KiB, which the API takes, and what stands beside it."""
TOO_LONG = b'{"error":"the answer is too long for the fleet; ask this node itself","code":"too_large"}'


class Others(Protocol):
    """What is known of the fleet's nodes (`Members`)."""

    def known(self) -> list[str]:
        """Those that were heard of late, without this one, by name."""
        ...


class Operators:
    """Asks other nodes, and answers them (`nodes.Nodes`)."""

    def __init__(
        self,
        line: Line,
        subjects: Subjects,
        others: Others,
        *,
        ask_s: float = ASK_S,
        gather_s: float = GATHER_S,
    ) -> None:
        self.node = subjects.node
        self._ask_s, self._gather_s = ask_s, gather_s
        self._line, self._subjects, self._others = line, subjects, others
        self._answer: Answer | None = None

    async def start(self) -> None:
        """Listen to questions."""
        for subject in (self._subjects.at(self.node, "admin"), self._subjects.of("admin")):
            await serve(self._line, f"{subject}.*", self._heard)

    def answer_by(self, answer: Answer) -> None:
        self._answer = answer

    async def ask(self, node: str, question: Question) -> Told:
        """What one node answers.

        Raises:
            NodeNotFound: there is no such node.
            NodeSilent: it does not answer in time.
        """
        known = self._others.known()
        if node not in known:
            raise NodeNotFound(f"no node {node!r}; the fleet has {', '.join(known) or 'no other'}", node=node)
        subject = f"{self._subjects.at(node, 'admin')}.{self.node}"
        try:
            data = await request(self._line, subject, pack(question), within_s=self._ask_s)
            told = await _read(data)
        except (Away, Nobody, BadFrame) as failure:
            raise NodeSilent(f"the node {node} does not answer: {failure.message}", node=node) from None
        if told.node != node:
            raise NodeSilent(f"the node {told.node!r} answered in the place of {node}", node=node)
        return told

    async def ask_all(self, question: Question) -> Everybody:
        """What all other nodes answer, and who is silent."""
        expected = set(self._others.known())
        told: dict[str, Told] = {}
        answers: list[bytes] = []
        if expected:
            subject = self._subjects.of("admin", self.node)
            with contextlib.suppress(Away):
                answers = await gather(
                    self._line, subject, pack(question), within_s=self._gather_s, most=len(expected)
                )
        for data in answers:
            try:
                one = await _read(data)
            except BadFrame:
                continue
            told[one.node] = one
        return Everybody(told=list(told.values()), silent=sorted(expected - told.keys()))

    async def _heard(self, message: Message) -> bytes | None:
        """The answer to a question; none to this node's own, which it hears, too."""
        asker = message.subject.rpartition(".")[2]
        if self._answer is None or asker == self.node:
            return None
        question = unpack(message.data, Question, most_bytes=QUESTION_BYTES)
        told = await self._answer(question, asker)
        return await asyncio.to_thread(self._written, told)

    def _written(self, told: Told) -> bytes:
        if len(told.body) > PACKED_BYTES:
            told = structs.replace(told, body=zlib.compress(told.body, 1), packed=True)
        frame = pack(told)
        if len(frame) > self._line.largest_bytes:
            frame = pack(Told(node=told.node, status=413, body=TOO_LONG))
        return frame


async def _read(data: bytes) -> Told:
    """Raises: BadFrame."""
    told = unpack(data, Told, most_bytes=MOST_BYTES)
    if told.packed:
        body = await asyncio.to_thread(_unpacked, told.body)
        told = structs.replace(told, body=body, packed=False)
    return told


def _unpacked(data: bytes) -> bytes:
    """What was packed, `MOST_BYTES` at the most.

    Raises:
        BadFrame
    """
    stream = zlib.decompressobj()
    try:
        body = stream.decompress(data, MOST_BYTES)
    except zlib.error as error:
        raise BadFrame(f"an answer that cannot be unpacked: {error}") from None
    if not stream.eof:
        raise BadFrame(f"an answer that ends early, or has more than {MOST_BYTES} bytes")
    return body
