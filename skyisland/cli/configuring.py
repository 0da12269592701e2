"""`skyisland config`: show, check and write settings; shell completion."""

from __future__ import annotations

import os
from pathlib import Path

import click
import msgspec
from click.shell_completion import get_completion_class

from skyisland.cli import GlobalOptions, Listing, main
from skyisland.settings import commented_toml, dump, find_file


@click.group(cls=Listing)
def config() -> None:
    """Show, check or write settings."""


@config.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_obj
def show(options: GlobalOptions, as_json: bool) -> None:
    """Print the settings in force, defaults included, without tokens."""
    text = dump(options.settings())
    if as_json:
        text = msgspec.json.encode(msgspec.toml.decode(text)).decode()
    click.echo(text.rstrip())


@config.command()
@click.pass_obj
def check(options: GlobalOptions) -> None:
    """Check the settings, and list all that is wrong.

    Exit code 1 if something is.
    """
    options.settings()
    file = options.file or find_file(os.environ)
    click.echo(f"{file} is valid" if file else "no settings file: the defaults are used")


@config.command()
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--force", is_flag=True, help="Overwrite the file.")
@click.option("--commented", is_flag=True, help="Write every key with its explanation, commented out.")
@click.pass_obj
def write(options: GlobalOptions, target: Path, force: bool, commented: bool) -> None:
    """Write the settings in force to a file, as TOML.

    A config.json becomes TOML this way.
    """
    if target.exists() and not force:
        raise click.ClickException(f"{target} exists; --force overwrites it")
    text = commented_toml() if commented else dump(options.settings(), secrets=True)
    # The text may contain the admin's token, so nobody else may read the file, even while it is written.
    target.touch(mode=0o600)
    target.chmod(0o600)
    target.write_text(text)
    click.echo(f"wrote {target}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes commands.

    \b
    bash, zsh:  eval "$(skyisland completion bash)"
    fish:       skyisland completion fish | source

    It also completes jails, addresses, keys, packages and their functions, by asking the running island.
    """
    completion_class = get_completion_class(shell)
    assert completion_class is not None, shell  # noqa: S101 - the choice above is click's own list
    click.echo(completion_class(main, {}, "skyisland", "_SKYISLAND_COMPLETE").source())


COMMANDS: tuple[click.Command, ...] = (config, completion)
