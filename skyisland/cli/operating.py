"""The commands that speak to a running island through its REST API."""

from __future__ import annotations

import click

COMMANDS: tuple[click.Command, ...] = ()
