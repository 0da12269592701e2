"""A pytest plugin that keeps what came of the tests of each case.

    pytest -p tests.attacks.case_results --cases FILE

The file, to which each run adds, holds a JSON object: for each test, without its parameters, the cases of
its markers and how many of its variants passed and failed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

_seen: dict[str, dict[str, Any]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cases", type=Path, help="Write the results by case to this file.")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" or report.outcome != "passed":
        name = re.sub(r"\[.*", "", item.nodeid, flags=re.DOTALL)
        numbers = {mark.args[0] for mark in item.iter_markers("case")}
        test = _seen.setdefault(name, {"cases": [], "passed": 0, "failed": 0})
        test["cases"] = sorted({*test["cases"], *numbers})
        test["passed" if report.outcome == "passed" else "failed"] += 1
        for number in numbers:
            each = test.setdefault("by_case", {}).setdefault(number, [0, 0])
            each[report.outcome != "passed"] += 1
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if path := session.config.getoption("--cases"):
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(before | _seen, indent=1))
