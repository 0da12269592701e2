"""The server's certificate and key: checked at start, and taken up again when they are renewed.

A tool that renews certificates writes the files anew, often first one and then the other. So they are looked
at from time to time, and what does not belong together yet changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
from collections.abc import Callable

from msgspec import Struct

from skyisland.errors import SettingsError

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""How often to look. So long may commands find another certificate than they read of."""


class Tls(Struct, frozen=True):
    """PEM files: the server's certificate with its chain, and its key."""

    certificate: str
    key: str

    def check(self) -> None:
        """Load them once, so that a mistake shows at start. Blocks.

        Raises:
            SettingsError: they cannot be read, or do not belong together.
        """
        try:
            self.load_into(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))
        except OSError as error:  # SSLError is one
            raise SettingsError(
                f"api.tls_cert, api.tls_key: cannot use {self.certificate} with {self.key}: {error}; name "
                "the PEM files of a certificate and of its key, without a password"
            ) from None

    def load_into(self, context: ssl.SSLContext) -> None:
        """Show them to whoever connects from now on."""
        context.load_cert_chain(self.certificate, self.key)

    def state(self) -> tuple[object, ...]:
        """Differs once one of the files was written anew. Blocks."""
        states: list[object] = [self]
        for file in (self.certificate, self.key):
            with contextlib.suppress(OSError):
                about = os.stat(file)
                states.append((about.st_ino, about.st_size, about.st_mtime_ns))
        return tuple(states)


async def renewing(tls: Callable[[], Tls], show: Callable[[Tls], None], *, look_s: float = LOOK_S) -> None:
    """Show the files that `tls` names whenever they were written anew, until this is cancelled."""
    known = await asyncio.to_thread(tls().state)
    while True:
        await asyncio.sleep(look_s)
        files = tls()
        state = await asyncio.to_thread(files.state)
        if state == known:
            continue
        known = state
        try:
            await asyncio.to_thread(files.check)
            show(files)
        except (SettingsError, OSError) as error:
            log.error("TLS: the certificate of before stays: %s", error)
        else:
            log.info("TLS: %s was written anew and is in force", files.certificate)
