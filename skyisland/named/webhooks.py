"""Signatures of webhooks, checked before a jail is spent on a request.

    github     X-Hub-Signature-256: sha256=HMAC-SHA256(secret, body), hexadecimal
    gitea      X-Gitea-Signature: the same without `sha256=` (Forgejo and Gogs send it, too)
    gitlab     X-Gitlab-Token: the secret itself
    stripe     Stripe-Signature: t=TIME,v1=HMAC-SHA256(secret, "TIME.body") …, hexadecimal
    standard   Standard Webhooks (github.com/standard-webhooks): webhook-id, webhook-timestamp, and
               webhook-signature: v1,BASE64 …, of "ID.TIME.body"; the secret is whsec_BASE64

Where a time is signed, it must not be further from ours than `TOLERANCE_S`, or an old request could be sent
again. All comparisons take constant time. What is here is linear in the body; the rest is bounded.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum

from skyisland.errors import Forbidden

TOLERANCE_S = 300.0
"""As the libraries of Stripe and of Standard Webhooks have it."""
MOST_SIGNATURES = 16
"""Signatures in one header: there are several while a secret is being changed."""


class Scheme(StrEnum):
    """Whose form a signature has."""

    github = "github"
    gitea = "gitea"
    gitlab = "gitlab"
    stripe = "stripe"
    standard = "standard"


PUSHERS = (Scheme.github, Scheme.gitea, Scheme.gitlab)
"""Servers of repositories, which tell of pushes."""


def check_signature(
    scheme: Scheme,
    secret: str,
    headers: Iterable[tuple[bytes, bytes]],
    body: bytes,
    clock: Callable[[], float] = time.time,
) -> None:
    """Check that whoever knows the secret sent this. `headers` have names in lower case.

    Raises:
        Forbidden: nobody who does; the text says what is missing, and nothing of the secret.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        found[name] = b"" if name in found else value  # two are none
    _CHECKS[scheme](secret, found, body, clock())


def _header(headers: Mapping[bytes, bytes], name: str) -> bytes:
    value = headers.get(name.lower().encode(), b"")
    if not value:
        raise Forbidden(f"the header {name} is missing, or there twice")
    return value


def _refuse(name: str) -> Forbidden:
    return Forbidden(f"the signature in {name} is not that of this body and the name's secret")


def _hex(secret: str, *parts: bytes) -> bytes:
    return hmac.new(secret.encode(), b"".join(parts), hashlib.sha256).hexdigest().encode()


def _github(secret: str, headers: Mapping[bytes, bytes], body: bytes, now: float) -> None:
    name = "X-Hub-Signature-256"
    if not hmac.compare_digest(_header(headers, name), b"sha256=" + _hex(secret, body)):
        raise _refuse(name)


def _gitea(secret: str, headers: Mapping[bytes, bytes], body: bytes, now: float) -> None:
    name = "X-Gitea-Signature"
    if not hmac.compare_digest(_header(headers, name), _hex(secret, body)):
        raise _refuse(name)


def _gitlab(secret: str, headers: Mapping[bytes, bytes], body: bytes, now: float) -> None:
    name = "X-Gitlab-Token"
    if not hmac.compare_digest(_header(headers, name), secret.encode()):
        raise Forbidden(f"the token in {name} is not the name's secret")


def _stripe(secret: str, headers: Mapping[bytes, bytes], body: bytes, now: float) -> None:
    name = "Stripe-Signature"
    parts = [part.strip().partition(b"=") for part in _header(headers, name).split(b",", MOST_SIGNATURES)]
    at = next((value for key, _, value in parts if key == b"t"), b"")
    _check_time(at, now, f"t in {name}")
    wanted = _hex(secret, at, b".", body)
    if not _any(wanted, (value for key, _, value in parts if key == b"v1")):
        raise _refuse(name)


def _standard(secret: str, headers: Mapping[bytes, bytes], body: bytes, now: float) -> None:
    name = "webhook-signature"
    id_, at = _header(headers, "webhook-id"), _header(headers, "webhook-timestamp")
    _check_time(at, now, "webhook-timestamp")
    coded = secret.removeprefix("whsec_")
    try:
        key = base64.b64decode(coded + "=" * (-len(coded) % 4), validate=True)  # it may come unpadded
    except (binascii.Error, ValueError):
        key = secret.encode()
    digest = hmac.new(key, b"".join((id_, b".", at, b".", body)), hashlib.sha256).digest()
    parts = [part.partition(b",") for part in _header(headers, name).split(b" ", MOST_SIGNATURES)]
    if not _any(base64.b64encode(digest), (value for version, _, value in parts if version == b"v1")):
        raise _refuse(name)


def _any(wanted: bytes, signatures: Iterable[bytes]) -> bool:
    """Whether one of them is the wanted one; all are compared."""
    return sum(hmac.compare_digest(wanted, signature) for signature in signatures) > 0


def _check_time(text: bytes, now: float, what: str) -> None:
    if not text.isdigit() or len(text) > 12 or abs(now - int(text)) > TOLERANCE_S:
        raise Forbidden(f"{what} is no time within {TOLERANCE_S:g} s of the island's clock")


_CHECKS: Mapping[Scheme, Callable[[str, Mapping[bytes, bytes], bytes, float], None]] = {
    Scheme.github: _github,
    Scheme.gitea: _gitea,
    Scheme.gitlab: _gitlab,
    Scheme.stripe: _stripe,
    Scheme.standard: _standard,
}
