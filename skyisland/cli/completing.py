"""Words that a shell completes by asking the running island; none where it does not answer soon."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem

from skyisland.cli import GlobalOptions
from skyisland.client import Client
from skyisland.errors import IslandError

COMPLETION_S = 3.0
"""Nobody waits longer for a key to be answered."""

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _asking(words: Callable[[Client, click.Context], Iterable[tuple[str, str]]], *, admin: bool) -> Complete:
    """Completes to the words that the island knows, each with what a shell may show beside it."""

    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        options = GlobalOptions(ctx.find_root().params.get("file"))
        try:
            with options.client(admin=admin, timeout_s=COMPLETION_S) as client:
                known = dict(words(client, ctx))
        except IslandError:
            return []
        return [
            CompletionItem(word, help=told) for word, told in known.items() if word.startswith(incomplete)
        ]

    return complete


def _offered(client: Client, ctx: click.Context) -> Iterable[tuple[str, str]]:
    offered = client.functions(ctx.params["url"], ctx.params.get("version"), patient=False)
    return ((entry.name, entry.synopsis) for entry in offered.functions)


jail_names = _asking(lambda client, _: ((jail.name, jail.call) for jail in client.jails()), admin=True)
addresses = _asking(
    lambda client, _: ((address.ip, address.state) for address in client.snapshot().addresses), admin=True
)
keys = _asking(
    lambda client, _: ((one.key, f"{one.url} {one.function}") for one in client.artifacts()), admin=True
)
packages = _asking(lambda client, _: ((one.url, "") for one in client.artifacts()), admin=True)
"""The packages that were called before."""
names_offered = _asking(_offered, admin=False)
"""What the package at the URL offers."""
