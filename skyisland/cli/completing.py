"""Words that a shell completes by asking the running island; none where it does not answer soon."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from skyisland.cli import GlobalOptions
from skyisland.cli.publishing import found, is_folder
from skyisland.errors import IslandError

if TYPE_CHECKING:
    from skyisland.client import Client

COMPLETION_S = 3.0
"""Nobody waits longer for a key to be answered."""

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _options(ctx: click.Context) -> GlobalOptions:
    return GlobalOptions(ctx.find_root().params.get("file"))


def _asking(words: Callable[[Client, click.Context], Iterable[tuple[str, str]]], *, admin: bool) -> Complete:
    """Completes to the words that the island knows, each with what a shell may show beside it."""

    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            with _options(ctx).client(admin=admin, timeout_s=COMPLETION_S) as client:
                known = dict(words(client, ctx))
        except (IslandError, click.ClickException):
            return []
        return [
            CompletionItem(word, help=told) for word, told in known.items() if word.startswith(incomplete)
        ]

    return complete


def _offered(client: Client, ctx: click.Context) -> Iterable[tuple[str, str]]:
    with found(_options(ctx), ctx.params["url"], ctx.params.get("version")) as place:
        offered = client.functions(*place, patient=False)
    return ((entry.name, entry.synopsis) for entry in offered.functions)


jail_names = _asking(lambda client, _: ((jail.name, jail.call) for jail in client.jails()), admin=True)
addresses = _asking(
    lambda client, _: ((address.ip, address.state) for address in client.snapshot().addresses), admin=True
)
keys = _asking(
    lambda client, _: ((one.key, f"{one.url} {one.function}") for one in client.artifacts()), admin=True
)
_called = _asking(lambda client, _: ((one.url, "") for one in client.artifacts()), admin=True)


def packages(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Folders of this machine, or packages that were called before."""
    if is_folder(incomplete):
        return [CompletionItem(incomplete, type="dir")]
    return _called(ctx, parameter, incomplete)


requests_over = _asking(
    lambda client, _: ((end.invocation or "", f"{end.verdict}: {end.call}") for end in client.invocations()),
    admin=True,
)
functions_called = _asking(
    lambda client, _: ((one.title, one.id) for one in client.report().functions), admin=True
)
names = _asking(
    lambda client, _: ((named.name, named.definition.url) for named in client.names()), admin=True
)
secrets = _asking(lambda client, _: ((name, "") for name in client.secrets()), admin=True)
calls_kept = _asking(
    lambda client, _: ((record.id, f"{record.state}: {record.call}") for record in client.calls()), admin=True
)
names_offered = _asking(_offered, admin=False)
"""What the package at the URL offers."""
