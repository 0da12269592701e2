"""Keys, each in its turn.

Textual puts a key into the focused widget's queue and takes the next one, before the first has done
anything. Whoever types ahead, or sits behind a link that delivers several keys at once, would find the
letters of a filter taken for commands. Here a key has done its work, with the focus and the screen where
it wants them, before the next one is looked at.
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

PATIENCE_S = 1.0
"""How long a key may keep the next one waiting."""


class Keyboard(App[R]):
    """An app that is done with one key before it takes the next; once it ends, it takes none."""

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.Key) and not event.is_forwarded:
            if self._exit:
                return
            self.app_focus = True  # whoever types is here, whatever the terminal reported
            try:
                await self._press(event)
            except Exception:
                # What a key runs into while everything is taken down is no fault of anything.
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
        """A key that nobody wanted comes back here; its bindings were tried already."""
        event.prevent_default()


async def _settled(node: DOMNode) -> None:
    """Wait until `node` and all above it, up to its screen, have nothing left to do."""
    for pump in node.ancestors_with_self:
        if isinstance(pump, App):
            return
        await _idle(pump)


async def _idle(pump: MessagePump) -> None:
    reached = asyncio.Event()
    if pump.is_running and pump.call_later(reached.set):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reached.wait(), PATIENCE_S)
