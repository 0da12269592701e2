"""What Go's runtime and standard library find in the jail of a call: its environment.

The runtime learns its limits, which it cannot read from a jail's /proc: with `GOMEMLIMIT` it collects
garbage before the kernel kills the jail for it, with `GOMAXPROCS` it runs no more threads than have
processors. A function may change either (`debug.SetMemoryLimit`, `runtime.GOMAXPROCS`). From the memory limit
the harness takes a bound on stacks (harness/limits.go).

The rest makes a jail a place with a user and a home folder, the same under every driver: the uid of a jail is
often in no /etc/passwd, and os/user takes the variables then.
"""

from __future__ import annotations

import math

from skyisland.model import Limits

MEMORY_SHARE = 0.9
"""How much of a jail's memory Go may use. The rest is for what it does not count, such as files."""
HOME = "/tmp"  # noqa: S108 - the jail's own, and the only folder that all drivers let it write to
USER = "nobody"
"""The name of uid 65534 in /etc/passwd, which is the jail's uid under bubblewrap."""


def function_environment(limits: Limits) -> tuple[tuple[str, str], ...]:
    """The environment of a function whose jail has these limits."""
    variables = [("HOME", HOME), ("USER", USER)]
    if limits.memory_bytes is not None:
        variables.append(("GOMEMLIMIT", str(int(limits.memory_bytes * MEMORY_SHARE))))
    if limits.cpus is not None:
        variables.append(("GOMAXPROCS", str(max(1, math.ceil(limits.cpus)))))
    return tuple(variables)
