"""SIGHUP: the settings are read again. What can change while the island runs does; the log names the rest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from msgspec import structs

from skyisland.errors import IslandError
from skyisland.island import Island
from skyisland.record.logs import set_level
from skyisland.settings import Api as ApiSettings
from skyisland.settings import Settings, admin_token
from skyisland.settings.section import Section

if TYPE_CHECKING:
    from api import Api

log = logging.getLogger(__name__)

AT_ONCE = (
    *("admin_api_token", "api.admins", "api.operators", "api.callers", "api.open", "api.origins"),
    *("api.base_path", "api.trusted_proxies", "api.calls_per_client", "api.connections_per_client"),
    *("api.max_body", "api.body_timeout", "api.tls_cert", "api.tls_key", "jails.exec_timeout", "log.level"),
)
"""Keys that take effect without a restart, beside those of `limits`."""
NOT_AT_ONCE = ("limits.require",)


def differences(old: Section, new: Section, prefix: str = "") -> Iterator[str]:
    """The keys whose values differ, with the sections that they are in: `api.open`."""
    for name in old.__struct_fields__:
        before, after = getattr(old, name), getattr(new, name)
        if isinstance(before, Section) and isinstance(after, Section):
            yield from differences(before, after, f"{prefix}{name}.")
        elif before != after:
            yield f"{prefix}{name}"


def _at_once(key: str) -> bool:
    return key in AT_ONCE or (key.startswith("limits.") and key not in NOT_AT_ONCE)


class Reloading:
    """Reads the settings again, one time after another."""

    def __init__(
        self,
        load: Callable[[], Settings],
        settings: Settings,
        island: Island,
        app: Api,
        secrets: list[str],
    ) -> None:
        """`load` reads them; `settings`: those in force. `secrets`: what the log hides, which grows."""
        self._load, self._settings = load, settings
        self._island, self._app, self._secrets = island, app, secrets
        self._again = asyncio.Event()

    def ask(self) -> None:
        """Read them soon; `run` does."""
        self._again.set()

    async def run(self) -> None:
        """Read them whenever somebody asks, until this is cancelled."""
        while True:
            await self._again.wait()
            self._again.clear()
            await self._read()

    async def _read(self) -> None:
        from api.tls import Tls

        try:
            new = await asyncio.to_thread(self._load)
            token = await asyncio.to_thread(admin_token, new)
            tls = Tls(new.api.tls_cert, new.api.tls_key) if new.api.tls_cert else None
            if tls is not None:
                await asyncio.to_thread(tls.check)
        except IslandError as error:
            log.error("SIGHUP: everything stays as it is: %s", error.message)
            return
        keys = list(differences(self._settings, new))
        if bool(self._settings.api.tls_cert) is not bool(tls):  # to begin or to end with it
            keys = [key for key in keys if not key.startswith("api.tls_")] + ["TLS"]
            new, tls = structs.replace(new, api=_with_tls_of(new.api, self._settings.api)), None
        self._secrets += {token, *new.api.tokens}.difference(self._secrets)
        self._app.reload(new.api, token)
        self._island.limit(new.limits.as_limits(), new.jails.exec_timeout)
        set_level(new.log.level.upper())
        done = [key for key in keys if _at_once(key)] + (["the files of TLS"] if tls else [])
        later = [key for key in keys if not _at_once(key)]
        log.warning("SIGHUP: settings read again; in force: %s", ", ".join(done) or "nothing new")
        if later:
            log.warning("SIGHUP: a restart is needed for: %s", ", ".join(later))
        self._settings = _kept(self._settings, new)


def _with_tls_of(new: ApiSettings, old: ApiSettings) -> ApiSettings:
    return structs.replace(new, tls_cert=old.tls_cert, tls_key=old.tls_key)


def _kept(old: Settings, new: Settings) -> Settings:
    """The settings in force now: the new ones, but for the keys that take a restart."""
    api = structs.replace(
        old.api, **{key[4:]: getattr(new.api, key[4:]) for key in AT_ONCE if key.startswith("api.")}
    )
    return structs.replace(
        old,
        api=api,
        admin_api_token=new.admin_api_token,
        limits=structs.replace(new.limits, require=old.limits.require),
        jails=structs.replace(old.jails, exec_timeout=new.jails.exec_timeout),
        log=new.log,
    )
