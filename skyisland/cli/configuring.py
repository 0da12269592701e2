"""`skyisland config`: show, check and write settings; shell completion."""

from __future__ import annotations

import os
from pathlib import Path

import click
import msgspec
from click.shell_completion import get_completion_class

from skyisland.cli import Chosen, main
from skyisland.settings import commented_toml, dump, find_file


@click.group()
def config() -> None:
    """Show, check or write settings."""


@config.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_obj
def show(chosen: Chosen, as_json: bool) -> None:
    """Print the settings in force, defaults included; the admin token is left out."""
    text = dump(chosen.settings())
    if as_json:
        text = msgspec.json.encode(msgspec.toml.decode(text)).decode()
    click.echo(text.rstrip())


@config.command()
@click.pass_obj
def check(chosen: Chosen) -> None:
    """Say whether the settings can be used; exit code 1 and every problem if not."""
    chosen.settings()
    file = chosen.file or find_file(os.environ)
    click.echo(f"{file} is good" if file else "no settings file: the defaults are used")


@config.command()
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--force", is_flag=True, help="Overwrite the file.")
@click.option("--commented", is_flag=True, help="Every key with its explanation, all commented out.")
@click.pass_obj
def write(chosen: Chosen, target: Path, force: bool, commented: bool) -> None:
    """Write the settings in force to TARGET as TOML (a config.json becomes TOML this way)."""
    if target.exists() and not force:
        raise click.ClickException(f"{target} is there already; --force overwrites it")
    text = commented_toml() if commented else dump(chosen.settings(), secrets=True)
    # The admin token may be in it.
    target.touch(mode=0o600)
    target.chmod(0o600)
    target.write_text(text)
    click.echo(f"wrote {target}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes commands in SHELL: eval "$(skyisland completion bash)"."""
    kind = get_completion_class(shell)
    assert kind is not None, shell  # noqa: S101 - the choice above is click's own list
    click.echo(kind(main, {}, "skyisland", "_SKYISLAND_COMPLETE").source())


COMMANDS: tuple[click.Command, ...] = (config, completion)
