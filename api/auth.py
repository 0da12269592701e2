"""Who may pass: admins, by a token in a header.

Compared in constant time; where no token is set, nobody is an admin.
"""

from __future__ import annotations

import hmac
import logging

from skyisland.errors import Forbidden, Unauthorized

log = logging.getLogger(__name__)


class Gate:
    """Lets admins through."""

    def __init__(self, header: str, token: str) -> None:
        self.header = header
        self._token = token.encode()

    def check(self, shown: str, client: str | None) -> None:
        """Nothing, if `shown`, the header's content, is the token.

        Raises:
            Unauthorized: it is empty.
            Forbidden: it is wrong, or no token is set.
        """
        if not shown:
            raise Unauthorized(f"this needs the admin token, in the header {self.header}")
        # A header comes as latin-1 of its bytes.
        right = hmac.compare_digest(shown.encode("latin-1", "replace"), self._token)
        if not (right and self._token):
            log.warning("a wrong admin token from %s", client)
            raise Forbidden(f"the token in the header {self.header} is wrong")
