"""The commands about receipts: print one, check one, print what they are verified with."""

from __future__ import annotations

import asyncio
import sys
from typing import IO, BinaryIO

import click

from skyisland.cli import GlobalOptions, Listing
from skyisland.cli.completing import requests_over
from skyisland.cli.printing import as_json, print_json, say
from skyisland.errors import BadRequest
from skyisland.receipts.receipt import FILE_BYTES, Built, canonical, differences, file_of, read_file
from skyisland.receipts.signing import SIGNERS_BYTES, verify


class _OrId(Listing):
    """What is no command is the id of a call, whose receipt is printed."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["show", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=_OrId)
def receipt() -> None:
    """Print the receipt of a call, or check one.

    \b
    skyisland invoke github.com/user/repo 'Encode(1, 2)' --receipt FILE
    skyisland receipt ID > FILE
    skyisland receipt check FILE

    ID is that of a call that was sent with `Prefer: receipt`.
    """


@receipt.command()
@click.argument("call", metavar="ID", shell_complete=requests_over)
@click.pass_obj
def show(options: GlobalOptions, call: str) -> None:
    """Print the receipt of a call, as it is signed."""
    with options.client(admin=False) as client:
        sys.stdout.buffer.write(file_of(client.receipt(call)))


@receipt.command()
@click.argument("file", type=click.File("rb"))
@click.option(
    "--signers",
    type=click.File(),
    help="Whose receipts count: a file of allowed signers (ssh-keygen). Without it, this island's.",
)
@click.option("--no-rebuild", "rebuild", is_flag=True, default=True, flag_value=False, help="Build nothing.")
@as_json
@click.pass_obj
def check(
    options: GlobalOptions, file: BinaryIO, signers: IO[str] | None, rebuild: bool, as_json: bool
) -> None:
    """Check a receipt: who signed it, and that its code is its binary.

    The binary is built again by the island of the settings, from the commit; it must be the same to the byte.
    Exit code 1 if anything is not as the receipt says.
    """
    signed = read_file(file.read(FILE_BYTES + 1))
    told = signed.receipt
    with options.client(admin=False) as client:
        known = signers.read(SIGNERS_BYTES) if signers is not None else client.signers()
        asyncio.run(verify(canonical(told), signed.signature, known))
        if not as_json:
            whose = "one of the signers" if signers is not None else "this island"
            say(f"signed by {whose}: island {told.island}, call {told.id}")
        if rebuild:
            found = client.reproduce(Built.of(told.made))
            if wrong := differences(told.made, found):
                raise BadRequest("; ".join(wrong))
            if not as_json:
                say(
                    f"builds to the same binary: {found.binary_sha256} by {found.toolchain}, {found.platform}"
                )
    if as_json:
        print_json({"good": True, "rebuilt": rebuild, "receipt": told})


@receipt.command()
@click.pass_obj
def signers(options: GlobalOptions) -> None:
    """Print what the island's receipts are verified with, a line of allowed signers."""
    with options.client(admin=False) as client:
        say(client.signers())


COMMANDS: tuple[click.Command, ...] = (receipt,)
