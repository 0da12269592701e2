"""How a command ends: what went wrong, told to people or machines, and the exit code.

The reason stands on standard error. For machines (`--json`) it is a line of JSON as the API's errors are:
{"error": text, "code": stable name, "details": {…}}.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import click

from skyisland.errors import IslandError, SettingsError

EXIT_FAILED, EXIT_UNREACHABLE, EXIT_FUNCTION, EXIT_INTERRUPTED, EXIT_UNREAD = 1, 3, 4, 130, 141
EXIT_CODES = {
    0: "done",
    EXIT_FAILED: "refused or failed; standard error says why",
    2: "the command line is wrong",
    EXIT_UNREACHABLE: "no island answers at the address in the settings",
    EXIT_FUNCTION: "the function did not end well, or returned an error (invoke)",
    EXIT_INTERRUPTED: "interrupted (Ctrl-C)",
    EXIT_UNREAD: "whoever read the output went away, as head(1) does",
}
OUTPUT_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""What writing to standard output may meet: no space left on the device, first of all."""


@contextmanager
def ending(*, as_json: bool) -> Iterator[None]:
    """Run a command in this block: every way in which it fails becomes words and an exit code."""
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except IslandError as error:
        # The text of settings has all that is wrong with them.
        details = error.details if as_json or not isinstance(error, SettingsError) else {}
        exit_code = EXIT_UNREACHABLE if error.code == "unreachable" else EXIT_FAILED
        _end(exit_code, error.message, error.code, details, as_json=as_json)
    except (KeyboardInterrupt, EOFError, click.Abort):  # click alone would exit with 1, as after a refusal
        _end(EXIT_INTERRUPTED, "interrupted", "interrupted", as_json=as_json)
    except click.ClickException as error:
        if not as_json:
            raise
        code = "usage" if isinstance(error, click.UsageError) else "failed"
        _end(error.exit_code, error.format_message(), code, as_json=True)
    except BrokenPipeError:
        _silence()
        sys.exit(EXIT_UNREAD)
    except OSError as error:
        what = error.filename
        if what is None and error.errno in OUTPUT_FAULTS:
            what = "standard output"
            _silence()
        if what is None:
            raise
        _end(EXIT_FAILED, f"{what}: {error.strerror}", "failed", as_json=as_json)


def _end(
    exit_code: int, message: str, code: str, details: Mapping[str, object] | None = None, *, as_json: bool
) -> None:
    """Say what went wrong, and exit."""
    from skyisland.cli.printing import line_of_json, say

    with suppress(OSError):  # standard error may be closed or full, too
        if as_json:
            problem = {"error": message, "code": code} | ({"details": details} if details else {})
            click.echo(line_of_json(problem), err=True)
        else:
            say(f"skyisland: {message}", fg="red" if code != "interrupted" else None, err=True)
            for name, value in (details or {}).items():
                say(f"  {name}: {value}".replace("\n", "\n    "), err=True)
    sys.exit(exit_code)


def _silence() -> None:
    """Drop what is still to be written: Python would try again at its end, and complain."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
