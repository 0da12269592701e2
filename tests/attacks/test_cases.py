"""The table of cases: complete, and about tests that exist."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.attacks.cases import CASES, GROUPS
from tests.support.places import ROOT


def _functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def _marked() -> set[str]:
    """The cases that markers below tests/attacks and tests/faults name."""
    texts = [
        file.read_text()
        for folder in ("attacks", "faults")
        for file in (ROOT / "tests" / folder).glob("test_*.py")
    ]
    return {case.number for case in CASES if any(f'"{case.number}"' in text for text in texts)}


def test_the_cases_are_numbered() -> None:
    numbers = [case.number for case in CASES]
    sizes = {letter: sum(number.rstrip("0123456789") == letter for number in numbers) for letter in GROUPS}
    assert numbers == [f"{letter}{n}" for letter, size in sizes.items() for n in range(1, size + 1)]
    assert len(numbers) >= 93


def test_every_case_is_proved_or_says_why_not() -> None:
    marked = _marked()
    assert [
        case.number for case in CASES if not (case.proofs or case.unproved or case.number in marked)
    ] == []


def test_every_proof_exists() -> None:
    functions: dict[str, set[str]] = {}
    for case in CASES:
        for proof in case.proofs:
            file, *_, name = proof.split("::")
            if file not in functions:
                functions[file] = _functions(ROOT / file)
            assert name in functions[file], proof


def test_the_page_has_every_case() -> None:
    page = (ROOT / "docs/security.md").read_text()
    for case in CASES:
        assert f"| {case.number} | " in page, case.number
    assert "**fails**" not in page
