"""Who is one client, and whom a proxy may name."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from hypercorn.typing import HTTPScope
from msgspec import structs

from api.clients import Clients, share_of
from skyisland import fakes
from skyisland.drivers.fake import Script
from skyisland.settings import Api
from tests.support.api import CALL, make_world

PROXIES = ("127.0.0.0/8", "2001:db8:f::/48")


def scope(peer: str, *headers: tuple[bytes, bytes]) -> HTTPScope:
    return cast("HTTPScope", {"client": (peer, 4711), "headers": headers})


@pytest.mark.parametrize(
    ("address", "share"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
    ],
)
def test_a_share_is_of_an_address_or_of_a_network_of_ipv6(address: str, share: str) -> None:
    assert share_of(address) == share


@pytest.mark.parametrize(
    ("peer", "headers", "client"),
    [
        # A stranger's word counts for nothing.
        ("192.0.2.9", [(b"x-forwarded-for", b"198.51.100.1")], "192.0.2.9"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", [(b"x-forwarded-for", b"198.51.100.1")], "198.51.100.1"),
        ("127.0.0.1", [(b"x-forwarded-for", b"198.51.100.1:8080")], "198.51.100.1"),
        ("127.0.0.1", [(b"x-forwarded-for", b"2001:db8::7")], "2001:db8::/64"),
        ("127.0.0.1", [(b"forwarded", b'proto=https;for="[2001:db8::7]:80"')], "2001:db8::/64"),
        ("127.0.0.1", [(b"forwarded", b"for=198.51.100.2;by=127.0.0.1")], "198.51.100.2"),
        # What the client wrote itself stands left of what the proxy appended, in one line or in two.
        ("127.0.0.1", [(b"x-forwarded-for", b"203.0.113.5, 198.51.100.1")], "198.51.100.1"),
        (
            "127.0.0.1",
            [(b"x-forwarded-for", b"203.0.113.5"), (b"x-forwarded-for", b"198.51.100.1")],
            "198.51.100.1",
        ),
        # Two proxies in a row.
        ("127.0.0.1", [(b"x-forwarded-for", b"6.6.6.6, 198.51.100.1, 2001:db8:f::1")], "198.51.100.1"),
        # The proxy sets one of the two, the client the other one.
        (
            "127.0.0.1",
            [(b"forwarded", b"for=203.0.113.5"), (b"x-forwarded-for", b"198.51.100.1")],
            "127.0.0.1",
        ),
        (
            "127.0.0.1",
            [(b"forwarded", b"for=198.51.100.1"), (b"x-forwarded-for", b"198.51.100.1")],
            "198.51.100.1",
        ),
        ("127.0.0.1", [(b"x-forwarded-for", b"unknown")], "127.0.0.1"),
        ("127.0.0.1", [(b"x-forwarded-for", b"198.51.100.1, \xff[")], "127.0.0.1"),
        ("127.0.0.1", [(b"forwarded", b"for=203.0.113.5, by=1.2.3.4")], "127.0.0.1"),
    ],
)
def test_only_a_trusted_proxy_names_its_client(peer: str, headers: Any, client: str) -> None:
    assert Clients(PROXIES).client_of(scope(peer, *headers)) == client


@pytest.mark.parametrize(
    ("proxies", "client"), [((), "unix"), (("127.0.0.0/8",), "unix"), (("unix",), "198.51.100.1")]
)
def test_a_proxy_may_come_by_a_unix_socket(proxies: tuple[str, ...], client: str) -> None:
    by_socket: Any = scope("", (b"x-forwarded-for", b"unix, 198.51.100.1")) | {"client": None}
    assert Clients(proxies).client_of(by_socket) == client


async def test_a_forged_header_gives_nobody_a_second_share() -> None:
    for proxies, allowed in (((), 1), (("127.0.0.1/32",), 3)):
        settings = structs.replace(Api(), calls_per_client=1, trusted_proxies=proxies)
        world = make_world(fakes.policy(max_running=10), settings=settings)
        await world.island.start()
        world.driver.script = lambda data: Script(duration_s=0.3)
        async with world.client() as client, asyncio.TaskGroup() as group:
            calls = [
                group.create_task(
                    client.post(
                        "/api/v1/function", json=CALL, headers={"X-Forwarded-For": f"198.51.100.{number}"}
                    )
                )
                for number in range(3)
            ]
        statuses = [call.result().status_code for call in calls]
        assert statuses.count(200) == allowed
        assert statuses.count(429) == 3 - allowed
        await world.island.stop()
