"""An island made of settings, where nothing real is needed: with fake jails."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs

from skyisland.errors import HostUnfit
from skyisland.events import Events
from skyisland.model import FunctionRequest, Verdict
from skyisland.settings import CallLimits, Jails, Settings
from skyisland.status import AddressState
from skyisland.wiring import opened


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / "state", jails=Jails(driver="fake"))


async def test_fake_jails_answer_calls_and_confine_nothing(settings: Settings) -> None:
    async with opened(settings, Events()) as island:
        await island.start()
        answer = await island.invoke(FunctionRequest(url="example.com/a/b", call="F(1)"))
        able = [capability.name for capability in island.capabilities() if capability.enforced]
        await island.stop()
    assert answer.outcome.verdict is Verdict.ok
    assert able == []


async def test_fake_jails_have_no_addresses(settings: Settings) -> None:
    async with opened(settings, Events()) as island:
        await island.start()
        with pytest.raises(HostUnfit, match="fake jails have no interfaces") as refused:
            await island.invoke(FunctionRequest(url="example.com/a/b", call="F(1)", ip4=True))
        addresses = island.status().addresses
        await island.stop()
    assert 'set jails.driver = "auto", or leave ip4 out' in refused.value.message
    assert {address.state for address in addresses} == {AddressState.available}


async def test_an_island_that_must_have_a_network_does_not_start_without(settings: Settings) -> None:
    settings = structs.replace(settings, limits=CallLimits(require=("network",)))
    async with opened(settings, Events()) as island:
        with pytest.raises(HostUnfit, match="cannot enforce 'network': fake jails have no interfaces"):
            await island.start()
        await island.stop()
