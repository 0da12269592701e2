"""The commands.

    skyisland -c FILE -i         prepare this host; the original's command line
    skyisland -c FILE            run the island; the original's command line
    skyisland COMMAND …          see `skyisland --help`

Exit codes: 0 done; 1 refused or failed, the reason is on standard error; 2 the command line is wrong;
3 no island answers at the settings' address; 4 the function ran and failed, or returned an error (`invoke`);
130 interrupted.

    serving        init, serve (`reloading` on SIGHUP), and doctor (`examining`)
    operating      commands that act on a running island: invoke, kill, console …
    watching       commands that only read from one: jails, logs …
    printing       answers as tables or JSON
    configuring    config, completion

This package may use every room but drivers. It alone imports both `api` and `tui`, and only when a command
needs them: `skyisland --help` loads neither.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from skyisland import __version__
from skyisland.errors import IslandError, SettingsError
from skyisland.settings import Settings, admin_token

if TYPE_CHECKING:
    from skyisland.client import Client

EXIT_FAILED, EXIT_UNREACHABLE, EXIT_FUNCTION, EXIT_INTERRUPTED = 1, 3, 4, 130


class Commands(click.Group):
    """Prints an island's error on standard error and turns it into an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except IslandError as error:
            from skyisland.cli.printing import say
            from skyisland.client import Unreachable

            say(f"skyisland: {error.message}", fg="red", err=True)
            for name, value in error.details.items():
                say(f"  {name}: {value}", err=True)
            sys.exit(EXIT_UNREACHABLE if isinstance(error, Unreachable) else EXIT_FAILED)
        except (KeyboardInterrupt, click.Abort):  # click alone would exit with 1, as after a refusal
            click.echo("skyisland: interrupted", err=True)
            sys.exit(EXIT_INTERRUPTED)


class GlobalOptions:
    """The values of the options that stand before the command; click hands it to each command."""

    def __init__(self, file: Path | None) -> None:
        self.file = file

    def settings(self) -> Settings:
        return Settings.load(self.file, os.environ)

    def client(self, *, admin: bool = True, timeout_s: float = 30.0) -> Client:
        """A connection to the island of these settings, with its admin token; `timeout_s` is for an answer.

        Without `admin`, an unreadable token is no error: most islands let everybody on this host call.
        """
        from skyisland.client import Client

        settings = self.settings()
        try:
            token = admin_token(settings, make=False)
        except SettingsError:
            if admin:
                raise
            token = ""
        header = settings.admin_token_header
        return Client(settings.url, token=token, header=header, timeout_s=timeout_s)


def console_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with the options of a console: its glyphs, its keys, its refresh interval."""
    for option in (
        click.option("--readonly", is_flag=True, help="Watch only: no key changes anything."),
        click.option("--no-mouse", "mouse", is_flag=True, flag_value=False, default=True, help="Keys only."),
        click.option("--ascii", is_flag=True, help="ASCII characters only, for fonts without others."),
        click.option(
            "--refresh",
            "refresh_s",
            type=click.FloatRange(0.1, 60),
            default=0.5,
            show_default=True,
            help="Seconds between two refreshes of the screen.",
        ),
    ):
        command = option(command)
    return command


@click.group(cls=Commands, invoke_without_command=True, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="skyisland")
@click.option(
    "-c",
    "--config",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings: TOML, or the original's config.json. Without it: the first that is found, or defaults.",
)
@click.option("-i", "--init", "init_only", is_flag=True, help="Prepare this host and stop.")
@click.pass_context
def main(ctx: click.Context, file: Path | None, init_only: bool) -> None:
    """Functions as a service on your own machine: any Go function, answered from a fresh jail.

    Without a command, runs the island (`serve`).
    """
    _open_standard_descriptors()
    ctx.obj = GlobalOptions(file)
    if ctx.invoked_subcommand is None:
        ctx.invoke(main.commands["init" if init_only else "serve"])
    elif init_only:
        raise click.UsageError("-i takes no command; run `skyisland init` first, and then the command")


def _open_standard_descriptors() -> None:
    """Open /dev/null in place of descriptors 0 to 2 that are closed, first of all: else the next files and
    sockets take their numbers, and libuv aborts when it closes one of them."""
    for number, mode in enumerate("rww"):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number, and those below are open
            os.set_inheritable(number, True)
        name = ("stdin", "stdout", "stderr")[number]
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - for as long as we run


def _add_commands() -> None:
    for name in ("serving", "watching", "operating", "configuring"):
        for command in import_module(f"skyisland.cli.{name}").COMMANDS:
            main.add_command(command)


_add_commands()
