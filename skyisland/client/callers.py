"""`Island` and `AsyncIsland`: an island as those see it who call its functions.

Both say the same (`asking`); one waits for the answers, the other awaits them.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar, overload

import httpx

from skyisland.client import asking
from skyisland.client.asking import Ask, Pause, Reply, Talk, Target, Unreachable, way_to
from skyisland.codec import AnswerLines, NotAnIsland, read_call
from skyisland.later.calls import Record
from skyisland.named.functions import Named
from skyisland.wire import Called, InputAnswer

T = TypeVar("T")

RETRIES = 3
CONNECT_S = 10.0
TIMEOUT_S = 30.0
"""For an answer that is ready at once; calls take as long as they take."""


class _Way:
    """How an island is reached."""

    def __init__(
        self, url: str, token: str, header: str, tls: ssl.SSLContext | None, timeout_s: float
    ) -> None:
        self.url = url
        self.base, self.socket = way_to(url, tls)
        self.verify: ssl.SSLContext | bool = tls or self.base.startswith("https:")
        shown = {header.encode(): token.encode()} if token else None
        # No proxy of the environment gets to see the token.
        self.options: dict[str, Any] = {
            "base_url": self.base,
            "headers": shown,
            "timeout": httpx.Timeout(timeout_s, connect=CONNECT_S),
            "trust_env": False,
            "verify": self.verify,
        }
        self.timeout_s = timeout_s

    def request(self, ask: Ask) -> dict[str, Any]:
        """Of httpx."""
        timeout = httpx.Timeout(None if ask.patient else self.timeout_s, connect=CONNECT_S)
        return {
            "method": ask.method,
            "url": ask.url,
            "content": ask.content,
            "headers": ask.headers,
            "timeout": timeout,
        }

    def reply(self, response: httpx.Response) -> Reply:
        return Reply(response.status_code, response.content, response.headers.get("Retry-After", ""))

    def lost(self, error: Exception) -> Reply:
        return Reply(lost=Unreachable(f"no answer from {self.url}: {error or type(error).__name__}"))


class _Lines:
    """What comes of many inputs, as their caller wants it."""

    def __init__(self, as_type: Any, failures: bool) -> None:
        self._as_type, self._failures = as_type, failures
        self._lines = AnswerLines()

    def take(self, chunk: bytes) -> Iterator[Any]:
        return map(self._value, self._lines.take(chunk))

    def _value(self, answer: InputAnswer) -> Any:
        try:
            return asking.of_input(answer, self._as_type)
        except asking.InputFailed as error:
            if self._failures:
                return error
            raise

    def end(self) -> None:
        """Raises:
        CallFailed: not all inputs have their answers."""
        asking.checked(self._lines.end())


class Island:
    """An island, for programs that wait. A context manager; one for all threads will do.

    `call` and the others raise `CallFailed` where the function does not end well, `Unreachable` where nobody
    answers, and the `IslandError` with which the island refuses.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:3280",
        *,
        token: str = "",
        header: str = "X-Sky-Island-Token",
        tls: ssl.SSLContext | None = None,
        retries: int = RETRIES,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`url`: also `unix:` and the path of a socket. `retries`: how often something is sent again where
        that is safe. `timeout_s`: for what is answered at once; calls take as long as they take."""
        self._way, self._retries = _Way(url, token, header, tls, timeout_s), retries
        if self._way.socket:
            transport = transport or httpx.HTTPTransport(uds=self._way.socket, verify=self._way.verify)
        self._http = httpx.Client(**self._way.options, transport=transport)

    def __repr__(self) -> str:
        return f"<Island {self._way.url}>"

    def __enter__(self) -> Island:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def _say(self, talk: Talk[T]) -> T:
        reply: Reply | None = None
        while True:
            try:
                step = talk.send(reply)  # type: ignore[arg-type] # None begins it
            except StopIteration as end:
                value: T = end.value
                return value
            if isinstance(step, Pause):
                time.sleep(step.seconds)
                reply = None
            else:
                reply = self._send(step)

    def _send(self, ask: Ask) -> Reply:
        try:
            return self._way.reply(self._http.request(**self._way.request(ask)))
        except (httpx.HTTPError, OSError) as error:
            return self._way.lost(error)

    @overload
    def call(
        self,
        target: Target,
        /,
        *args: Any,
        as_type: type[T],
        stdin: str | bytes | None = None,
        once: bool = False,
        behind: bool = False,
        **named: Any,
    ) -> T: ...
    @overload
    def call(
        self,
        target: Target,
        /,
        *args: Any,
        as_type: Any = Any,
        stdin: str | bytes | None = None,
        once: bool = False,
        behind: bool = False,
        **named: Any,
    ) -> Any: ...
    def call(
        self,
        target: Target,
        /,
        *args: Any,
        as_type: Any = Any,
        stdin: str | bytes | None = None,
        once: bool = False,
        behind: bool = False,
        **named: Any,
    ) -> Any:
        """What a function gives back: its one result, a list of several, or None.

        `target`: a `Function`, or the name of one. `args` by position, or `named` by the names of its
        parameters. `as_type`: what msgspec makes of the results, such as a dataclass. `once`: if the answer
        gets lost, the call is sent again and still runs once. `behind`: it leaves the way to all others.

        Raises:
            CallFailed, Unreachable, IslandError
            TypeError: the results are not what `as_type` says.
        """
        called = self.called(target, *args, stdin=stdin, once=once, behind=behind, **named)
        return asking.value_of(asking.checked(called).answer.results, as_type, called)

    def called(
        self,
        target: Target,
        /,
        *args: Any,
        stdin: str | bytes | None = None,
        once: bool = False,
        behind: bool = False,
        **named: Any,
    ) -> Called:
        """The same with all that the island tells: how it ended, what it printed, how long it took.

        Raises:
            Unreachable, IslandError
        """
        retries = self._retries
        return self._say(asking.call(target, args, named, stdin, once=once, behind=behind, retries=retries))

    def submit(
        self,
        target: Target,
        /,
        *args: Any,
        stdin: str | bytes | None = None,
        key: str = "",
        callback: str = "",
        **named: Any,
    ) -> str:
        """Have a call kept and run when there is room; returns its id, for `result`.

        `key`: an Idempotency-Key of your own; one is made without. `callback`: the URL that gets its record.

        Raises:
            Unreachable, IslandError
        """
        retries = self._retries
        return self._say(
            asking.submit(target, args, named, stdin, key=key, callback=callback, retries=retries)
        )

    def result(self, call_id: str, *, as_type: Any = Any, wait_s: float | None = None) -> Any:
        """What a submitted call gave back, as soon as it is over; `wait_s`: no longer than that.

        Raises:
            TimeoutError: it is not over.
            CallFailed, Unreachable, IslandError
        """
        called = asking.outcome(self.record(call_id, wait_s=wait_s))
        return asking.value_of(called.answer.results, as_type, called)

    def record(self, call_id: str, *, wait_s: float | None = 0.0) -> Record:
        """All that is known of a submitted call; with `wait_s`, as soon as it is over."""
        return self._say(asking.result(call_id, wait_s=wait_s, retries=self._retries))

    def map(
        self, target: Target, inputs: Iterable[Any], *, as_type: Any = Any, failures: bool = False
    ) -> Iterator[Any]:
        """What a function gives back for each of many inputs, in their order, as it comes; all in one jail.

        `inputs`: of each call its arguments, a list or a dictionary by name; anything else is the one
        argument. `failures`: give those that fail as `InputFailed`, in place of raising the first.

        Raises:
            InputFailed, CallFailed, Unreachable, IslandError
        """
        ask, lines = asking.many(target, inputs), _Lines(as_type, failures)
        try:
            with self._http.stream(**self._way.request(ask)) as response:
                if response.status_code != httpx.codes.OK:
                    asking.checked(read_call(response.status_code, response.read()))
                    return
                for chunk in response.iter_bytes():
                    yield from lines.take(chunk)
            lines.end()
        except NotAnIsland as error:
            raise Unreachable(f"{self._way.url} {error}") from None
        except (httpx.HTTPError, OSError) as error:
            raise Unreachable(f"{self._way.url}: {error or type(error).__name__}") from None

    def names(self) -> list[Named]:
        """The functions that have a name, for operators."""
        return self._say(asking.names(self._retries))


class AsyncIsland:
    """The same for programs on asyncio."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:3280",
        *,
        token: str = "",
        header: str = "X-Sky-Island-Token",
        tls: ssl.SSLContext | None = None,
        retries: int = RETRIES,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """As of `Island`."""
        self._way, self._retries = _Way(url, token, header, tls, timeout_s), retries
        if self._way.socket:
            transport = transport or httpx.AsyncHTTPTransport(uds=self._way.socket, verify=self._way.verify)
        self._http = httpx.AsyncClient(**self._way.options, transport=transport)

    def __repr__(self) -> str:
        return f"<AsyncIsland {self._way.url}>"

    async def __aenter__(self) -> AsyncIsland:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def _say(self, talk: Talk[T]) -> T:
        reply: Reply | None = None
        while True:
            try:
                step = talk.send(reply)  # type: ignore[arg-type] # None begins it
            except StopIteration as end:
                value: T = end.value
                return value
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                reply = None
            else:
                reply = await self._send(step)

    async def _send(self, ask: Ask) -> Reply:
        try:
            return self._way.reply(await self._http.request(**self._way.request(ask)))
        except (httpx.HTTPError, OSError) as error:
            return self._way.lost(error)

    @overload
    async def call(
        self,
        target: Target,
        /,
        *args: Any,
        as_type: type[T],
        stdin: str | bytes | None = None,
        once: bool = False,
        behind: bool = False,
        **named: Any,
    ) -> T: ...
    @overload
    async def call(
        self,
        target: Target,
        /,
        *args: Any,
        as_type: Any = Any,
        stdin: str | bytes | None = None,
        once: bool = False,
        behind: bool = False,
        **named: Any,
    ) -> Any: ...
    async def call(
        self,
        target: Target,
        /,
        *args: Any,
        as_type: Any = Any,
        stdin: str | bytes | None = None,
        once: bool = False,
        behind: bool = False,
        **named: Any,
    ) -> Any:
        """As `Island.call`."""
        called = await self.called(target, *args, stdin=stdin, once=once, behind=behind, **named)
        return asking.value_of(asking.checked(called).answer.results, as_type, called)

    async def called(
        self,
        target: Target,
        /,
        *args: Any,
        stdin: str | bytes | None = None,
        once: bool = False,
        behind: bool = False,
        **named: Any,
    ) -> Called:
        """As `Island.called`."""
        retries = self._retries
        return await self._say(
            asking.call(target, args, named, stdin, once=once, behind=behind, retries=retries)
        )

    async def submit(
        self,
        target: Target,
        /,
        *args: Any,
        stdin: str | bytes | None = None,
        key: str = "",
        callback: str = "",
        **named: Any,
    ) -> str:
        """As `Island.submit`."""
        retries = self._retries
        return await self._say(
            asking.submit(target, args, named, stdin, key=key, callback=callback, retries=retries)
        )

    async def result(self, call_id: str, *, as_type: Any = Any, wait_s: float | None = None) -> Any:
        """As `Island.result`."""
        called = asking.outcome(await self.record(call_id, wait_s=wait_s))
        return asking.value_of(called.answer.results, as_type, called)

    async def record(self, call_id: str, *, wait_s: float | None = 0.0) -> Record:
        """As `Island.record`."""
        return await self._say(asking.result(call_id, wait_s=wait_s, retries=self._retries))

    async def map(
        self, target: Target, inputs: Iterable[Any], *, as_type: Any = Any, failures: bool = False
    ) -> AsyncIterator[Any]:
        """As `Island.map`."""
        ask, lines = asking.many(target, inputs), _Lines(as_type, failures)
        try:
            async with self._http.stream(**self._way.request(ask)) as response:
                if response.status_code != httpx.codes.OK:
                    asking.checked(read_call(response.status_code, await response.aread()))
                    return
                async for chunk in response.aiter_bytes():
                    for value in lines.take(chunk):
                        yield value
            lines.end()
        except NotAnIsland as error:
            raise Unreachable(f"{self._way.url} {error}") from None
        except (httpx.HTTPError, OSError) as error:
            raise Unreachable(f"{self._way.url}: {error or type(error).__name__}") from None

    async def names(self) -> list[Named]:
        """As `Island.names`."""
        return await self._say(asking.names(self._retries))
