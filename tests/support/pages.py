"""What the pages in docs/ take from the code, written between their marks, and the manual page: `make pages`.

A block stands between `<!-- name -->` and `<!-- /name -->`. A page that was not written anew fails in
`tests/unit/test_pages.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from msgspec import structs
from prometheus_client.parser import text_string_to_metric_families

from skyisland.cli.ending import EXIT_CODES
from skyisland.events import InvocationFinished
from skyisland.model import Purpose, Timings
from skyisland.operations import OPERATIONS, Operation, Parameter
from skyisland.record.metrics import Metrics, StatsD
from skyisland.status import Backlog, ByItself, JailInfo, JailState, ScheduleFigures
from tests.support.api import make_world
from tests.support.manual import PAGE, manual
from tests.support.places import ROOT


def operations() -> str:
    """The table of REST operations."""
    rows = ["| | | role | |", "| --- | --- | --- | --- |"]
    return "\n".join([*rows, *map(_operation, OPERATIONS)])


def _operation(operation: Operation[Any]) -> str:
    paths = ", ".join(f"`{path}`" for path in operation.paths)
    told = " ".join([operation.summary, *map(_parameter, operation.query)])
    return f"| {operation.method} | {paths} | {operation.role or ''} | {told} |"


def _parameter(parameter: Parameter) -> str:
    bounds = [" or ".join(parameter.among)] if parameter.among else []
    if type(parameter.default) is int and parameter.default:
        bounds = [f"{parameter.default} without it", f"{parameter.most} at most"]
    shown = f" ({', '.join(bounds)})" if bounds else ""
    return f"`?{parameter.name}`{shown}: {parameter.meaning}"


def prometheus() -> str:
    """The table of /metrics, from what an island shows of each."""
    metrics = Metrics(StatsD("nowhere.test"))
    metrics.fold(InvocationFinished(url="u", call="F()", verdict="ok", timings=Timings()))
    metrics.traffic.record(200, 0.1)
    island = make_world().island
    for verdict in ("ok", "exited"):
        end = InvocationFinished(url="u", call="F()", verdict=verdict, timings=Timings())
        island.events.publish(structs.replace(end, repository="u", function="F"))
    jail = JailInfo(
        jid=1,
        name="sky-t-1",
        hostname="sky-t-1",
        path="/",
        os_release="",
        state=JailState.warm,
        pid=None,
        created_at=0.0,
        purpose=Purpose.function,
    )
    status = structs.replace(island.status(), jails=[jail])
    rows = ["| name | kind | labels | |", "| --- | --- | --- | --- |"]
    one = ScheduleFigures(name="report", next=1.0, last=1.0, calls=1, missed=0, skipped=0, waits=False)
    by_itself = ByItself(schedules=[one], pushes={"moved": 1})
    text = metrics.prometheus(status, Backlog(), by_itself=by_itself).decode()
    for family in text_string_to_metric_families(text):
        if family.type == "gauge" and family.name.endswith("_created"):
            continue  # when each counter began: the library's own
        labels = sorted({name for sample in family.samples for name in sample.labels} - {"le"})
        name = f"{family.name}_total" if family.type == "counter" else family.name
        shown = ", ".join(f"`{label}`" for label in labels)
        rows.append(f"| `{name}` | {family.type} | {shown} | {family.documentation} |")
    return "\n".join(rows)


def exits() -> str:
    """The table of exit codes."""
    return "\n".join(
        ["| exit code | |", "| --- | --- |", *(f"| {code} | {why} |" for code, why in EXIT_CODES.items())]
    )


BLOCKS: dict[str, tuple[str, Callable[[], str]]] = {
    "operations": ("docs/rest.md", operations),
    "prometheus": ("docs/operating.md", prometheus),
    "exits": ("docs/operating.md", exits),
}
"""Page and maker of each block."""


def written(text: str, name: str, block: str) -> str:
    """`text` with `block` between its marks."""
    found = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.DOTALL)
    assert len(found.findall(text)) == 1, f"there is not one block {name!r}"
    return found.sub(lambda _: f"{block}\n", text)


def main() -> None:
    for name, (page, make) in BLOCKS.items():
        path = ROOT / page
        path.write_text(written(path.read_text(), name, make()))
    PAGE.write_text(manual())


if __name__ == "__main__":
    main()
