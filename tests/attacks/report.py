"""Writes docs/security.md: the text of `security.md` beside this, with the table of cases and their results.

`make security` runs the tests that prove cases, of each folder those that `--tests FOLDER` names, and
then `python -m tests.attacks.report RESULTS`. A case whose tests failed or did not run is called that.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

from tests.attacks.cases import CASES, GROUPS, Case
from tests.support.places import ROOT

HERE = Path(__file__).parent
TARGET = ROOT / "docs" / "security.md"


def proofs(case: Case, results: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """The tests of a case: name, how many of its variants passed, how many failed."""
    found = {}
    for name, test in results.items():
        if case.number in test["cases"]:
            passed, failed = test["by_case"][case.number]
            found[name] = (passed, failed)
    for name in case.proofs:
        test = results.get(name, {"passed": 0, "failed": 0})
        found[name] = (test["passed"], test["failed"])
    return found


def result(case: Case, found: dict[str, tuple[int, int]]) -> str:
    if not found:
        return "not proved here"
    if any(failed for _, failed in found.values()):
        return "**fails**"
    if not all(passed for passed, _ in found.values()):
        return "**not run**"
    return "holds"


def table(results: dict[str, Any]) -> str:
    lines = []
    counts: dict[str, int] = {}
    for letter, title in GROUPS.items():
        lines += ["", f"### {letter}: {title}", "", "| | tried | must come of it | here | proved by |"]
        lines.append("| - | - | - | - | - |")
        for case in CASES:
            if case.number.rstrip("0123456789") != letter:
                continue
            found = proofs(case, results)
            told = result(case, found)
            counts[told] = counts.get(told, 0) + 1
            names = "; ".join(
                f"`{name.removeprefix('tests/')}`" + (f" ({passed})" if passed > 1 else "")
                for name, (passed, _) in found.items()
            )
            why = case.unproved and f"{names + '; ' if names else ''}{case.unproved}"
            cells = (case.number, case.attack, case.outcome, told, why or names)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    summary = ", ".join(f"{count} {told}" for told, count in sorted(counts.items()))
    system = f"{platform.system()} {platform.release()} on {platform.machine()}"
    return f"{len(CASES)} cases on {system}: {summary}.\n" + "\n".join(lines)


def main() -> None:
    if sys.argv[1] == "--tests":
        files = {proof.split("::")[0] for case in CASES for proof in case.proofs}
        print(*sorted(file for file in files if file.startswith(f"tests/{sys.argv[2]}/")))
        return
    results = json.loads(Path(sys.argv[1]).read_text())
    TARGET.parent.mkdir(exist_ok=True)
    text = (HERE / "security.md").read_text()
    TARGET.write_text(text.replace("{cases}", table(results)))


if __name__ == "__main__":
    main()
