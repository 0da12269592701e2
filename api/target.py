"""What a request names: its target as the routes know it, whatever way it took.

    GET http://island.example.org/healthcheck    absolute, as proxies are asked (RFC 9112, section 3.2.2)
    /island/api/v1/function                      below `api.base_path`, if a proxy leaves that on
    /api/v1/function/                            with a slash at its end

All three are the same as without. An absolute target names the host, and the header Host is then nobody's
business (same section).
"""

from __future__ import annotations

import re

from hypercorn.typing import HTTPScope

_ABSOLUTE = re.compile(r"https?://([^/?#@]*)(/.*)?", re.IGNORECASE | re.DOTALL)


def straight(scope: HTTPScope, base_path: str) -> HTTPScope:
    """The request with a plain target; itself if it has one."""
    path = asked = scope["path"]
    headers = scope["headers"]
    if absolute := _ABSOLUTE.fullmatch(path):
        path = absolute[2] or "/"
        host = absolute[1].encode("latin-1", "replace")
        headers = [pair for pair in headers if pair[0] != b"host"]
        headers = [(b"host", host), *headers]
    if base_path and path.startswith(base_path) and path[len(base_path) :][:1] in ("", "/"):
        path = path[len(base_path) :] or "/"
    if len(path) > 1 and path.endswith("/"):
        path = path[:-1]
    if path == asked:
        return scope
    return scope | {"path": path, "headers": headers}
