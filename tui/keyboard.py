"""Keys, one at a time.

Textual queues a key for the focused widget and takes the next key before the first has had any effect. When
several keys arrive at once, from a fast typist or a slow connection, it would take a filter's letters for
commands. Here a key has had its effect, focus and screen included, before the next one is taken.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TypeVar

from textual import events
from textual.app import App
from textual.dom import DOMNode
from textual.message_pump import MessagePump

R = TypeVar("R")

KEY_TIMEOUT_S = 1.0
"""How long a key may keep the next one waiting. A judgement."""


class Keyboard(App[R]):
    """An app that finishes with one key before it takes the next, and takes none while it ends."""

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.Key) and not event.is_forwarded:
            if self._exit:
                return
            self.app_focus = True  # a key proves it, whatever the terminal reported
            try:
                await self._press(event)
            except Exception:
                # While the app is taken down, a key may find half of it gone.
                if not self._exit:
                    raise
        else:
            await super().on_event(event)

    async def _press(self, key: events.Key) -> None:
        screen, focused = self.screen, self.focused
        writes = focused is not None and focused.check_consume_key(key.key, key.character)
        done = await self._check_bindings(key.key, priority=True)
        if not done and not writes:
            done = await self._check_bindings(key.key)
        if not done:
            (focused or screen)._forward_event(key)
        await _settled(focused or screen)
        if self.screen is not screen:
            await _settled(self.screen)

    async def _on_key(self, event: events.Key) -> None:
        """A key that no widget took comes back here. Its bindings were tried already, so do nothing."""
        event.prevent_default()


async def _settled(node: DOMNode) -> None:
    """Wait until `node` and all its ancestors up to the screen have handled their messages."""
    for pump in node.ancestors_with_self:
        if isinstance(pump, App):
            return
        await _idle(pump)


async def _idle(pump: MessagePump) -> None:
    reached = asyncio.Event()
    if pump.is_running and pump.call_later(reached.set):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reached.wait(), KEY_TIMEOUT_S)
