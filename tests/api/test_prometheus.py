"""Figures as Prometheus takes them: promtool, a real scrape, the alert rules and the Grafana board."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from skyisland.drivers.fake import Script
from skyisland.named.definition import Definition
from skyisland.named.schedule import Schedule
from skyisland.settings import Api
from tests.support.api import CALL, World, make_world
from tests.support.daemon import free_port
from tests.support.places import ROOT

TOKEN = "a-token-that-prometheus-shows"
RULES = ROOT / "config/prometheus/alerts.yml"
SCRAPE = ROOT / "config/prometheus/scrape.yml"
BOARD = ROOT / "config/grafana/skyisland.json"
SCRAPES = "SKYISLAND_PROMETHEUS"
"""Set by `make test-prometheus`: Prometheus waits five seconds before its first scrape."""
installed = pytest.mark.skipif(not shutil.which("promtool"), reason="`make tools` installs Prometheus")


def alerts() -> dict[str, str]:
    """The expression of each rule."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for rule in group["rules"]}


def board() -> dict[str, str]:
    """The expressions of the board, by panel and letter, for all islands and a minute."""
    panels = json.loads(BOARD.read_text())["panels"]
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        .replace("$instance", ".*")
        .replace("$__rate_interval", "1m")
        for panel in panels
        for target in panel.get("targets", ())
    }


@asynccontextmanager
async def busy() -> AsyncIterator[World]:
    """An island that has something of everything to show."""
    world = make_world(settings=Api(operators={"prometheus": TOKEN}))
    await world.island.start()
    schedule = Schedule(cron="0 8 * * *")
    await world.island.named.define("report", Definition(url=CALL["url"], function="F", schedule=schedule))
    async with world.client() as client:
        await client.post("/api/v1/function", json=CALL)
        world.driver.script = lambda data: Script(exit_code=3)
        await client.post("/api/v1/function", json=CALL)
    yield world
    await world.island.stop()


async def figures(world: World) -> bytes:
    island = world.island
    return world.metrics.prometheus(
        island.status(), await island.later.backlog(), by_itself=island.named.by_itself()
    )


async def test_board_and_rules_ask_for_what_there_is() -> None:
    async with busy() as world:
        text = (await figures(world)).decode()
    labels: defaultdict[str, set[str]] = defaultdict(set)
    states: defaultdict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels[sample.name] |= set(sample.labels)
            states[sample.name] |= {sample.labels.get("state", "")}
    asked = alerts() | board()
    assert len(asked) > 30
    for where, expression in asked.items():
        names = re.findall(r"\b(skyisland_\w+|up)(?:\{([^}]*)\})?", expression)
        assert names, where
        for name, matchers in names:
            if name == "up":
                continue
            assert name in labels, f"{where}: /metrics has no {name}"
            used = set(re.findall(r"(\w+)(?==|!=)", matchers)) - {"instance", "job"}
            assert used <= labels[name], where
            asked_states = set(re.findall(r'\bstate!?="(\w+)"', matchers))
            assert asked_states <= states[name], f"{where}: there is no such state"
    told = {name.removesuffix("_bucket") for name in labels}
    for name in ("skyisland_invocations_total", "skyisland_phase_seconds", "skyisland_places"):
        assert name in told


@installed
async def test_promtool_finds_nothing_to_mend(tmp_path: Path) -> None:
    async with busy() as world:
        text = await figures(world)

    def said(*words: str | Path, given: bytes = b"") -> str:
        done = subprocess.run(["promtool", "check", *words], input=given, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return (done.stdout + done.stderr).decode()

    def check() -> None:
        rules = said("rules", RULES)
        assert f"{len(alerts())} rules found" in rules
        said("config", "--syntax-only", SCRAPE)
        assert said("metrics", given=text) == ""

    await asyncio.to_thread(check)


@installed
@pytest.mark.skipif(SCRAPES not in os.environ, reason="`make test-prometheus` runs this")
async def test_a_real_prometheus_scrapes_it_and_knows_every_expression(tmp_path: Path) -> None:
    async with busy() as world, world.served() as server:
        token, port = tmp_path / "token", free_port()
        token.write_text(TOKEN)
        config = yaml.safe_load(SCRAPE.read_text())
        config["global"] = {"scrape_interval": "100ms", "evaluation_interval": "100ms"}
        config["rule_files"] = [str(RULES)]
        (job,) = config["scrape_configs"]
        job["authorization"]["credentials_file"] = str(token)
        job["static_configs"] = [{"targets": [f"127.0.0.1:{server.port}"]}]
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        options = {
            "config.file": tmp_path / "prometheus.yml",
            "storage.tsdb.path": tmp_path / "data",
            "web.listen-address": f"127.0.0.1:{port}",
            "log.level": "error",
        }
        process = await asyncio.create_subprocess_exec(
            "prometheus", *(f"--{name}={value}" for name, value in options.items())
        )
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1") as client:

                async def ask(expression: str) -> list[dict[str, Any]]:
                    answer = (await client.get("/query", params={"query": expression})).json()
                    assert answer["status"] == "success", (expression, answer)
                    found: list[dict[str, Any]] = answer["data"]["result"]
                    return found

                async with asyncio.timeout(60):
                    while not await _up(ask):  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
                    ended = await ask("sum by (verdict) (skyisland_invocations_total)")
                    counts = {one["metric"]["verdict"]: one["value"][1] for one in ended}
                    assert counts == {"ok": "1", "exited": "1"}
                    for expression in (board() | alerts()).values():
                        await ask(expression)
                    (target,) = (await client.get("/targets")).json()["data"]["activeTargets"]
                    assert (target["health"], target["lastError"]) == ("up", "")
        finally:
            process.terminate()
            await process.wait()


async def _up(ask: Any) -> bool:
    """Whether Prometheus listens, and has scraped."""
    try:
        return bool(await ask('up{job="skyisland"} == 1'))
    except (httpx.TransportError, ValueError):
        return False
