"""What a package's own Examples say of it: Go runs those with `// Output:` and compares, in a jail.

They run as `go test` compiles them, without the repository's files around them and without the name's
environment. What comes out is the jail's word, as all of a package is: a repository that wants to pass does.
"""

from __future__ import annotations

import re

from skyisland.errors import BuildFailed
from skyisland.golang.callee import NO_EXAMPLE
from skyisland.model import Outcome, Verdict

SHOWN_CHARACTERS = 1000
"""How much of what failed stands in the error's message; `details["output"]` has all."""
_PASSED = re.compile(rb"^--- PASS: Example", re.MULTILINE)
_FAILED = re.compile(rb"^--- FAIL: Example.*", re.MULTILINE | re.DOTALL)


def count_passed(outcome: Outcome) -> int:
    """How many passed, if none failed and there was one.

    Raises:
        BuildFailed: names those that failed, or says that there is none.
    """
    output = outcome.stdout.decode(errors="replace")
    if outcome.verdict is not Verdict.ok:
        failed = _FAILED.search(outcome.stdout)
        why = failed[0].decode(errors="replace") if failed else f"they ended as {outcome.verdict}"
        message = f"verify: the package's Examples do not pass: {why[:SHOWN_CHARACTERS].strip()}"
        raise BuildFailed(message, output=output or outcome.stderr.decode(errors="replace"))
    passed = len(_PASSED.findall(outcome.stdout))
    if not passed:
        raise BuildFailed(NO_EXAMPLE, output=output)
    return passed
