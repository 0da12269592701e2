"""Who may do what: a token in a header stands for a name and a role.

    role       sees what admins see   changes it   calls functions
    admin      yes                    yes          yes
    operator   yes                    no           where they are open to all
    caller     no                     no           yes

A token stands in the header of the settings, or behind `Authorization: Bearer` (RFC 6750), for clients that
know no other. Which role an operation takes stands in `skyisland.operations`. A token is compared with every
known one, in constant time, so that the time of an answer tells nothing of them.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Iterable

from msgspec import Struct

from skyisland.errors import Forbidden, Unauthorized
from skyisland.operations import Role
from skyisland.settings import Api

log = logging.getLogger(__name__)


class Who(Struct, frozen=True):
    """Whose token a request shows."""

    name: str
    role: Role


NOBODY = Who("", Role.caller)
_BEARER = b"bearer "


class Gate:
    """Checks tokens against the settings."""

    def __init__(self, header: str, token: str, settings: Api | None = None) -> None:
        """`token`: of the admin without a name; empty where all admins have names."""
        self.header = header
        self._name = header.lower().encode()
        self._in_headers = f"in the header {header} or as Authorization: Bearer"
        self.read(token, settings or Api())

    def read(self, token: str, settings: Api) -> None:
        """From now on, these tokens count."""
        self.open = settings.open
        tables = (
            (Role.admin, {"admin": token} if token else {}),
            (Role.admin, settings.admins),
            (Role.operator, settings.operators),
            (Role.caller, settings.callers),
        )
        self._tokens = [
            (Who(name, role), token.encode()) for role, table in tables for name, token in table.items()
        ]

    def token_of(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The token that a request shows, empty without one; `headers` have names in lower case.

        The header of the settings counts before `Authorization`, which a proxy may have filled.
        """
        bearer = b""
        for name, value in headers:
            if name == b"authorization" and value[:7].lower() == _BEARER:
                bearer = value[7:].strip()
            elif name == self._name and value:
                return value.decode("latin-1")
        return bearer.decode("latin-1")

    def is_admins(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether a request shows an admin's token."""
        who = self.who(self.token_of(headers))
        return who is not None and who.role is Role.admin

    def admit(self, token: str, address: str | None, *, change: bool) -> Who:
        """Whose token this is, if it is an operator's or, to `change` something, an admin's.

        `token`: as `token_of` finds it; `address`: the client's, for the log.

        Raises:
            Unauthorized: there is no token.
            Forbidden: the token is unknown, or its role may not do this.
        """
        if not token:
            whose = "an admin's" if change else "an operator's or admin's"
            raise Unauthorized(f"this needs {whose} token, {self._in_headers}")
        who = self.who(token)
        if who is None or who.role is Role.caller:
            log.warning("a wrong admin token from %s%s", address, f", {who.name}'s" if who else "")
            raise Forbidden(f"the token {self._in_headers} is wrong")
        if change and who.role is not Role.admin:
            log.warning("%s@%s tried what takes an admin", who.name, address)
            raise Forbidden(f"the token {self._in_headers} is an operator's; this takes an admin's")
        return who

    def admit_call(self, token: str, address: str | None) -> Who:
        """Whose token this is, if it may call functions; `NOBODY` without a known token where all may.

        Raises:
            Unauthorized, Forbidden: functions are not open to all, and the token is missing, unknown or an
                operator's.
        """
        who = self.who(token) if token else None
        if self.open:
            return who or NOBODY
        if not token:
            raise Unauthorized(f"calls need a token, {self._in_headers}")
        if who is None or who.role is Role.operator:
            log.warning("a wrong token for a call from %s%s", address, f", {who.name}'s" if who else "")
            raise Forbidden(f"the token {self._in_headers} is not a caller's")
        return who

    def who(self, token: str) -> Who | None:
        """Whose token this is; None for an unknown one."""
        owner = None
        # Headers are decoded as latin-1, whatever their bytes mean.
        content = token.encode("latin-1", "replace")
        for who, known in self._tokens:  # to the end, whichever matches
            if hmac.compare_digest(content, known):
                owner = who
        return owner
