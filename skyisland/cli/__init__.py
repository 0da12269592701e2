"""The commands.

    skyisland -c FILE -i         prepare this host; the original's command line
    skyisland -c FILE            run the island; the original's command line
    skyisland COMMAND …          see `skyisland --help`

    ending         what went wrong, told to people or machines, and the exit codes
    supervising    supervise: keeps the socket of an island that is started anew
    serving        init, serve (`preparing` shows how far, `reloading` on SIGHUP), doctor (`examining`)
    calling        invoke, functions: what callers do
    receipts       receipt: what an island answered, signed, and whether it is true
    past           sweep, bisect, replay: calls at other versions
    deferring      calls: those that answer later
    publishing     folders of the user's own machine, as repositories for the island
    operating      commands that act on a running island: kill, cache, console …
    watching       commands that only read from one: jails, logs …
    joining        fleet: several machines that are one
    gathering      what all nodes of a fleet answer (`--node all`), printed
    naming         functions with a name, and their secrets
    defining       what a name shall stand for, of options or a file
    completing     words that a shell completes by asking the island
    printing       answers as tables or JSON
    configuring    config, completion

A new command is a function in one of these modules and a line in `SECTIONS`, the first one of its docstring.
All keep these conventions:

- Nothing is imported before it is needed: `skyisland --help` loads Click and this module. A command's module
  is imported when the command is used, and imports a server or a screen within the function.
- What shows something has `@as_json`, and prints by `print_list` or `print_fields`: where no terminal reads
  it, one line for each row and no word cut; ids are never split; with `--json` exactly the fields of the API.
- Standard output has the answer and nothing else. Notes, questions and errors go to standard error.
- An error is raised, as an `IslandError` or `click.UsageError`; `ending` prints it, in JSON where `--json`
  was given, and knows the exit code. A hint that names a command spells it by `GlobalOptions.line`, which
  repeats the `-c` that was given.
- What foreign people wrote reaches a terminal by `say` and the tables only, which escape it.
- An argument that names something of the island completes (`shell_complete`, in `completing`).
- What destroys the work of others asks first on a terminal, and has `--yes`.

This package may use every room but drivers. It alone imports both `api` and `tui`.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator, MutableMapping
from importlib import import_module
from io import TextIOWrapper
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from skyisland.cli.ending import EXIT_FAILED as EXIT_FAILED
from skyisland.cli.ending import EXIT_FUNCTION as EXIT_FUNCTION
from skyisland.cli.ending import EXIT_INTERRUPTED as EXIT_INTERRUPTED
from skyisland.cli.ending import EXIT_UNREACHABLE as EXIT_UNREACHABLE
from skyisland.cli.ending import ending

if TYPE_CHECKING:
    import ssl

    from click.shell_completion import CompletionItem

    from skyisland.client import Client
    from skyisland.settings import Settings

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Run an island": {
        "init": ("serving", "Prepare this host."),
        "serve": ("serving", "Run the island, with a console where there is a terminal."),
        "supervise": ("supervising", "Run the island again and again on one socket, without systemd."),
        "doctor": ("serving", "Say what this host can and cannot do, and the remedies."),
        "config": ("configuring", "Show, check or write settings."),
    },
    "Call functions": {
        "invoke": ("calling", "Run a call of a Go package."),
        "functions": ("calling", "List what a Go package offers."),
        "sweep": ("past", "Make one call at each release of its repository, oldest first."),
        "bisect": ("past", "Find the first version that does not answer as expected."),
        "replay": ("past", "Make a call again that is over: its commit, arguments and input."),
        "receipt": ("receipts", "Print the receipt of a call, or check one."),
        "calls": ("deferring", "List, show, cancel or run again the calls that answer later."),
    },
    "Watch a running island": {
        "console": ("operating", "Watch and steer a running island."),
        "web": ("operating", "The console in a browser, on loopback."),
        "status": ("watching", "Show the island at this moment."),
        "requests": ("watching", "List the latest calls that are over, newest first."),
        "request": ("watching", "Show one call that is over."),
        "top": ("watching", "List the functions that were called, most calls first."),
        "logs": ("watching", "Print the latest lines of the island's log."),
        "jails": ("watching", "List the living jails."),
        "jail": ("watching", "Show one jail."),
        "output": ("watching", "Print what a jail writes, as it comes."),
        "ips": ("watching", "List the addresses of the pool."),
        "capabilities": ("watching", "Show what the island's host enforces, and what it cannot."),
        "stats": ("watching", "Show the HTTP traffic since the island started."),
    },
    "Steer it": {
        "kill": ("operating", "Kill a jail, or all of them."),
        "names": ("naming", "Functions with a name: list them, or what else the commands below do."),
        "secrets": ("naming", "Secrets of functions with a name: list, set, delete them."),
        "ip": ("operating", "Take an address out of the pool, or give it back."),
        "cache": ("operating", "List, evict, rebuild or purge the binaries that are kept."),
        "rebuild": ("operating", "Build a binary anew."),
    },
    "Several machines": {
        "fleet": ("joining", "Write what a fleet needs, or show how it is."),
    },
    "Your shell": {
        "completion": ("configuring", "Print the script that completes commands."),
    },
}
"""The module of each command, and the first line of its help, as `skyisland --help` prints it."""


SUCCEEDS = "SKYISLAND_SUCCEEDS"
"""A variable with which `supervise` tells `serve` that another island still runs, whose end it is to wait
for."""
OF_ALL = ("cache list", "ips", "jails", "logs", "requests", "stats", "status", "top")
"""What `--node all` is for."""
AS_JSON = "skyisland.cli.as_json"
"""Where a context keeps whether `--json` was given: also a command line that is wrong is told so in JSON."""


class _Late(MutableMapping[str, click.Command]):
    """The commands of `SECTIONS`, each imported when somebody asks for it."""

    def __init__(self) -> None:
        self._modules = {name: module for rows in SECTIONS.values() for name, (module, _) in rows.items()}
        self._loaded: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._loaded:
            module = import_module(f"skyisland.cli.{self._modules[name]}")
            self._loaded |= {command.name: command for command in module.COMMANDS}
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._modules[name]


class Listing(click.Group):
    """A group that lists its commands with the whole first line of their help."""

    def rows(self) -> dict[str, dict[str, str]]:
        """Command and first line, by section."""
        lines = {name: (command.help or "").split("\n")[0] for name, command in self.commands.items()}
        return {"Commands": lines}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, rows in self.rows().items():
            with formatter.section(title):
                formatter.write_dl([*rows.items()])


class Commands(Listing):
    """Prints what went wrong and turns it into an exit code; lists its commands without importing them."""

    def rows(self) -> dict[str, dict[str, str]]:
        return {title: {name: line for name, (_, line) in rows.items()} for title, rows in SECTIONS.items()}

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        as_json = "--json" in args
        with ending(as_json=as_json):
            ctx = super().make_context(info_name, args, parent, **extra)
        ctx.meta[AS_JSON] = as_json
        return ctx

    def invoke(self, ctx: click.Context) -> Any:
        with ending(as_json=ctx.meta[AS_JSON]):
            return super().invoke(ctx)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        rows = {name: line for section in self.rows().values() for name, line in section.items()}
        names = [
            CompletionItem(name, help=rows[name]) for name in sorted(rows) if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


class GlobalOptions:
    """The values of the options that stand before the command; click hands it to each command."""

    def __init__(
        self, file: Path | None = None, authorities: Path | None = None, node: str | None = None
    ) -> None:
        """`authorities`: whose certificates to trust, in place of the island's own. `node`: of the island's
        fleet, the one that a command is about, or `all`."""
        self.file, self.authorities, self.node = file, authorities, node

    @property
    def words(self) -> list[str]:
        """Those that were given, as words of a command line."""
        given = (("-c", self.file), ("--cacert", self.authorities), ("--node", self.node))
        return [word for option, file in given if file is not None for word in (option, str(file))]

    def at(self, node: str) -> GlobalOptions:
        """The same for another node."""
        return GlobalOptions(self.file, self.authorities, node)

    def line(self, *words: str) -> str:
        """A command line of ours as the user would type it, with the options that were given."""
        return shlex.join(["skyisland", *self.words, *words])

    def settings(self) -> Settings:
        from skyisland.settings import Settings

        return Settings.load(self.file, os.environ)

    def client(self, *, admin: bool = True, timeout_s: float = 30.0) -> Client:
        """A connection to the island of these settings, with its admin token; `timeout_s` is for an answer.

        Without `admin`, an unreadable token is no error: most islands let everybody on this host call.

        Raises:
            click.UsageError: all nodes are meant (`gathering` asks those).
            Unreachable: there is no token, and no island either.
            SettingsError: there is no token that we may read.
        """
        from skyisland.client import Client
        from skyisland.errors import SettingsError
        from skyisland.settings import admin_token

        if self.node == "all":
            raise click.UsageError(f"--node all is for {', '.join(OF_ALL)}; here, name one node")
        settings = self.settings()
        remedy, tls = f"start one by `{self.line('serve')}`", self.tls(settings)

        def connected(token: str) -> Client:
            header = settings.admin_token_header
            return Client(
                settings.url,
                token=token,
                header=header,
                timeout_s=timeout_s,
                remedy=remedy,
                tls=tls,
                node=self.node or "",
            )

        try:
            return connected(admin_token(settings, make=False))
        except SettingsError:
            with connected("") as anonymous:
                if admin:
                    anonymous.capabilities()  # that no island runs is what the user must hear first
                    raise
        return connected("")

    def check(self) -> None:
        """Raises what `client` does, for who connects in another way and later."""
        with self.client():
            pass

    def tls(self, settings: Settings) -> ssl.SSLContext | None:
        """Whom to trust that says to be the island of these settings; None where that speaks no TLS."""
        if not settings.api.tls_cert:
            return None
        from skyisland.host.trust import trusting

        return trusting(settings.url, own=settings.api.tls_cert, authorities=self.authorities)


def _number(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and isnan(value):  # which lies in every range of click's
        raise click.BadParameter("nan is no number", ctx=ctx, param=param)
    return value


def console_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with the options of a console: its glyphs, colours and keys, its refresh interval.
    Theme and interval are remembered for the next time."""
    for option in (
        click.option("--readonly", is_flag=True, help="Watch only: no key changes anything."),
        click.option("--no-mouse", "mouse", is_flag=True, flag_value=False, default=True, help="Keys only."),
        click.option(
            "--ascii/--unicode",
            "ascii",
            default=None,
            help="ASCII characters only, or others, too. By itself: what terminal and locale have.",
        ),
        click.option("--theme", help="Colours: sky, textual-light, ansi-dark …"),
        click.option(
            "--refresh",
            "refresh_s",
            metavar="SECONDS",
            type=click.FloatRange(0.1, 60),
            callback=_number,
            help="Seconds between two refreshes of the screen; at first 0.5.",
        ),
    ):
        command = option(command)
    return command


@click.group(
    cls=Commands,
    commands=_Late(),
    invoke_without_command=True,
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="skyisland", prog_name="skyisland")
@click.option(
    "-c",
    "--config",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings: TOML, or the original's config.json. Without it: the first that is found, or defaults.",
)
@click.option(
    "--cacert",
    "authorities",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Whose certificates to trust (PEM). Without it: the island's own, as the settings name it.",
)
@click.option(
    "--node",
    metavar="NAME|all",
    help="Of the island's fleet: the node that a command asks or changes; of lists also all.",
)
@click.option("-i", "--init", "init_only", is_flag=True, help="Prepare this host and stop.")
@click.pass_context
def main(
    ctx: click.Context, file: Path | None, authorities: Path | None, node: str | None, init_only: bool
) -> None:
    """Functions as a service on your own machine: any Go function, answered from a fresh jail.

    Without a command, runs the island (`serve`).
    """
    _open_standard_descriptors()
    ctx.obj = GlobalOptions(file, authorities, node)
    if ctx.invoked_subcommand is None:
        ctx.invoke(main.commands["init" if init_only else "serve"])
    elif init_only:
        first = ctx.obj.line("init")
        raise click.UsageError(f"-i takes no command; run `{first}` first, and then the command")


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
    for stream in (
        sys.stdout,
        sys.stderr,
    ):  # a character that a terminal's encoding lacks is no reason to fail
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
