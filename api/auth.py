"""Who may do what: names and roles, by a token in a header. Which role an operation takes stands in
`skyisland.operations`.

    role       sees what admins see   changes it   calls functions
    admin      yes                    yes          yes
    operator   yes                    no           where they are open to all
    caller     no                     no           yes

Every token is compared, in constant time; where none is set, nobody has its role.
"""

from __future__ import annotations

import hmac
import logging

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


class Gate:
    """Lets those through who may pass."""

    def __init__(self, header: str, token: str, settings: Api | None = None) -> None:
        """`token`: that of the admin without a name; without one there are only named admins."""
        settings = settings or Api()
        self.header = header
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

    def admit(self, shown: str, address: str | None, *, change: bool) -> Who:
        """Who wants to see, or `change`, what admins do, and may.

        `shown`: the header's content; `address`: the client's, for the log.

        Raises:
            Unauthorized: no token is shown.
            Forbidden: it is no token of ours, or not one for this.
        """
        if not shown:
            raise Unauthorized(f"this needs the admin token, in the header {self.header}")
        who = self.who(shown)
        if who is None or who.role is Role.caller:
            log.warning("a wrong admin token from %s%s", address, f", {who.name}'s" if who else "")
            raise Forbidden(f"the token in the header {self.header} is wrong")
        if change and who.role is not Role.admin:
            log.warning("%s@%s tried what takes an admin", who.name, address)
            raise Forbidden(f"the token in the header {self.header} is an operator's; this takes an admin's")
        return who

    def admit_call(self, shown: str, address: str | None) -> Who:
        """Who wants to call a function, and may; `NOBODY` for one without a name.

        Raises:
            Unauthorized, Forbidden: functions are not open to all, and this is no caller.
        """
        who = self.who(shown) if shown else None
        if self.open:
            return who or NOBODY
        if not shown:
            raise Unauthorized(f"calls need a token, in the header {self.header}")
        if who is None or who.role is Role.operator:
            log.warning("a wrong token for a call from %s%s", address, f", {who.name}'s" if who else "")
            raise Forbidden(f"the token in the header {self.header} is not a caller's")
        return who

    def who(self, shown: str) -> Who | None:
        """Whose token it is."""
        found = None
        # A header comes as latin-1 of its bytes.
        content = shown.encode("latin-1", "replace")
        for who, token in self._tokens:
            if hmac.compare_digest(content, token):
                found = who
        return found
