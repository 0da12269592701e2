"""Signatures of webhooks: each scheme's own example, and whatever is not one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyisland.errors import Forbidden
from skyisland.later.callbacks import signed
from skyisland.named.webhooks import TOLERANCE_S, Scheme, check_signature

NOW = 1_700_000_000
BODY = b'{"a": "\xc3\xa4"}\n'
WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def sha256(secret: bytes, data: bytes) -> hmac.HMAC:
    return hmac.new(secret, data, hashlib.sha256)


def stripe(at: int, *, body: bytes = BODY, secret: bytes = b"s") -> bytes:
    return sha256(secret, b"%d.%b" % (at, body)).hexdigest().encode()


def standard(at: int, key: bytes) -> bytes:
    return b"v1," + base64.b64encode(sha256(key, b"msg_1.%d.%b" % (at, BODY)).digest())


KEY = base64.b64decode(WHSEC.removeprefix("whsec_"))
GITHUB = sha256(b"s", BODY).hexdigest().encode()
GOOD: list[tuple[Scheme, str, dict[bytes, bytes]]] = [
    (Scheme.github, "s", {b"x-hub-signature-256": b"sha256=" + GITHUB}),
    (Scheme.gitea, "s", {b"x-gitea-signature": GITHUB}),
    (Scheme.gitlab, "s", {b"x-gitlab-token": b"s"}),
    (Scheme.stripe, "s", {b"stripe-signature": b"t=%d,v1=%b,v0=x" % (NOW, stripe(NOW))}),
    (Scheme.stripe, "s", {b"stripe-signature": b"t=%d, v1=00, v1=%b" % (NOW, stripe(NOW))}),
    (
        Scheme.standard,
        WHSEC,
        {
            b"webhook-id": b"msg_1",
            b"webhook-timestamp": b"%d" % NOW,
            b"webhook-signature": b"v1a,xx v1,AAAA " + standard(NOW, KEY),
        },
    ),
]


@pytest.mark.parametrize(("scheme", "secret", "headers"), GOOD)
def test_what_is_signed_passes_and_nothing_else(
    scheme: Scheme, secret: str, headers: dict[bytes, bytes]
) -> None:
    def check(secret: str, headers: dict[bytes, bytes], body: bytes = BODY, now: float = NOW) -> None:
        check_signature(scheme, secret, headers.items(), body, clock=lambda: now)

    check(secret, headers)
    wrong: list[tuple[str, dict[bytes, bytes], bytes, float]] = [("t", headers, BODY, NOW)]
    if scheme is not Scheme.gitlab:
        wrong.append((secret, headers, BODY + b"x", NOW))
    if scheme in (Scheme.stripe, Scheme.standard):
        wrong += [(secret, headers, BODY, NOW + sign * (TOLERANCE_S + 1)) for sign in (1, -1)]
    wrong += [(secret, {**headers, name: b""}, BODY, NOW) for name in headers]
    wrong += [(secret, {**headers, name: value[:-1] + b"\xff"}, BODY, NOW) for name, value in headers.items()]
    wrong.append((secret, {}, BODY, NOW))
    for one in wrong:
        if scheme is Scheme.stripe and one[1].get(b"stripe-signature", b"").endswith(b"v0=\xff"):
            continue
        with pytest.raises(Forbidden) as refused:
            check(*one)
        assert secret not in refused.value.message.split() or len(secret) == 1
    with pytest.raises(Forbidden, match="there twice"):
        check_signature(scheme, secret, [*headers.items(), *headers.items()], BODY, clock=lambda: NOW)


def test_the_official_library_of_standard_webhooks_agrees() -> None:
    """What it signs passes here, and what the island signs (a callback) passes there."""
    library = pytest.importorskip("standardwebhooks", reason="pip install -e '.[dev]'")
    long = "whsec_" + base64.b64encode(bytes(range(40))).decode()
    for secret in (WHSEC, WHSEC.removeprefix("whsec_"), long, long.rstrip("=")):
        theirs = library.Webhook(secret)
        at = datetime.fromtimestamp(NOW, tz=UTC)
        headers = {
            b"webhook-id": b"msg_1",
            b"webhook-timestamp": b"%d" % NOW,
            b"webhook-signature": theirs.sign("msg_1", at, BODY.decode()).encode(),
        }
        check_signature(Scheme.standard, secret, headers.items(), BODY, clock=lambda: NOW)
        coded = secret.removeprefix("whsec_")
        key = base64.b64decode(coded + "=" * (-len(coded) % 4))
        now = int(time.time())
        assert theirs.verify(BODY, signed("call-1", now, BODY, key)) == {"a": "ä"}
        for wrong in (
            signed("call-1", now, BODY + b" ", key),
            signed("call-1", now, BODY, key + b"x"),
            signed("call-1", now - 301, BODY, key),
            signed("call-1", now, BODY, key) | {"webhook-id": "call-2"},
        ):
            with pytest.raises(library.webhooks.WebhookVerificationError):
                theirs.verify(BODY, wrong)


def test_an_example_of_githubs_documentation() -> None:
    signature = b"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    headers = [(b"x-hub-signature-256", signature)]
    check_signature(Scheme.github, "It's a Secret to Everybody", headers, b"Hello, World!")


@given(scheme=st.sampled_from(Scheme), value=st.binary(max_size=200), body=st.binary(max_size=50))
def test_no_header_breaks_it(scheme: Scheme, value: bytes, body: bytes) -> None:
    names = [b"x-hub-signature-256", b"x-gitea-signature", b"x-gitlab-token", b"stripe-signature"]
    names += [b"webhook-id", b"webhook-timestamp", b"webhook-signature"]
    with pytest.raises(Forbidden):
        check_signature(scheme, "a secret", [(name, value) for name in names], body, clock=lambda: NOW)
