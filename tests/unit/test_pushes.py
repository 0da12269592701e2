"""Pushes that a repository's server tells of: whose are taken, who looks at Git then, and what came of it."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from skyisland.drivers.fake import Script
from skyisland.errors import BadRequest, BuildFailed, Forbidden, NameNotFound, NotFound
from skyisland.fakes import FakeSources
from skyisland.model import Resolved
from skyisland.named.definition import Definition, Webhook
from skyisland.named.functions import NamedFunctions
from skyisland.named.pushes import Pushed, PushState, bare, concerns, read_payload
from skyisland.named.webhooks import Scheme
from tests.support.api import World, make_world
from tests.unit.test_schedules import revision_of

URL = "github.com/u/r"
OLD, NEW = "a" * 40, "b" * 40
SECRET = "it is signed with this"
ENCODE = Definition(
    url=URL, function="Encode", version="main", push=Webhook(scheme=Scheme.github, secret="HOOK")
)


def payload(
    ref: str = "refs/heads/main", after: str = NEW, repository: str = "https://github.com/U/r.git"
) -> bytes:
    """As GitHub has it, cut down to a tenth."""
    return json.dumps(
        {
            "ref": ref,
            "before": OLD,
            "after": after,
            "repository": {"id": 1, "full_name": "U/r", "clone_url": repository, "owner": {"name": "U"}},
            "commits": [{"id": after, "message": "ä", "added": [], "modified": ["a.go"]}],
        }
    ).encode()


def github(
    body: bytes, delivery: str = "1", secret: str = SECRET, event: str = "push"
) -> list[tuple[bytes, bytes]]:
    return [
        (b"x-github-event", event.encode()),
        (b"x-github-delivery", delivery.encode()),
        (b"x-hub-signature-256", b"sha256=" + signed(body, secret)),
    ]


def signed(body: bytes, secret: str = SECRET) -> bytes:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest().encode()


class Remote(FakeSources):
    """A repository whose branches are all at one commit, and what was doubted of it."""

    def __init__(self) -> None:
        super().__init__()
        self.commit = OLD
        self.doubted: list[str] = []

    async def resolve(self, url: str, version: str | None, *, refresh: bool, client: str = "") -> Resolved:
        resolved = await super().resolve(url, version, refresh=refresh, client=client)
        return structs.replace(resolved, commit=self.commit)

    async def doubt(self, name: str) -> None:
        self.doubted.append(name)


@pytest.fixture
def remote() -> Remote:
    return Remote()


@pytest.fixture
async def world(remote: Remote) -> AsyncIterator[World]:
    made = make_world(sources=remote)
    await made.island.start()
    await made.island.named.secrets.set("HOOK", SECRET)
    yield made
    await made.island.stop()


@pytest.fixture
async def named(world: World) -> NamedFunctions:
    await world.island.named.define("encode", ENCODE)
    return world.island.named


async def over(named: NamedFunctions, name: str = "encode") -> Pushed:
    """What came of the latest push."""
    await named._following.background.drain()
    pushed = named.get(name).pushed
    assert pushed is not None
    return pushed


async def test_a_push_moves_the_names_that_follow_the_branch(
    world: World, remote: Remote, named: NamedFunctions
) -> None:
    quiet = structs.replace(ENCODE, push=None)
    others: dict[str, dict[str, Any]] = {
        "beside": {"version": None},
        "pinned": {"pin": True},
        "elsewhere": {"url": "github.com/u/s"},
        "another": {"version": "dev"},
        "tag": {"version": "v1"},
    }
    for name, other in others.items():
        await named.define(name, structs.replace(quiet, **other))
    remote.commit = NEW
    body = payload()
    told = await named.pushes.take("encode", github(body), body)
    assert (told.state, told.names, told.delivery) == (PushState.taken, ("beside", "encode"), "1")
    assert remote.doubted == [URL]
    done = await over(named)
    assert (done.state, done.commit, done.ref) == (PushState.moved, NEW, "refs/heads/main")
    assert [named.get(one).commit for one in ("encode", "beside", "pinned", "another")] == [
        NEW,
        NEW,
        OLD,
        OLD,
    ]
    assert (named.get("encode").why, named.get("encode").by) == ("pushed", "island")
    # It comes again: nothing is asked of anybody.
    remote.commit = "c" * 40
    again = await named.pushes.take("encode", github(body), body)
    assert again == structs.replace(done, again=True)
    await named._following.background.drain()
    assert (named.get("encode").commit, remote.doubted) == (NEW, [URL])
    tag = payload("refs/tags/v1.2.0", after="c" * 40)
    await named.pushes.take("encode", github(tag, "2"), tag)
    assert (await over(named, "tag")).state == PushState.moved
    assert (named.get("tag").commit, named.get("encode").commit) == ("c" * 40, NEW)


async def test_what_does_not_compile_or_pass_its_examples_stays_where_it_is(
    world: World, remote: Remote, named: NamedFunctions
) -> None:
    remote.commit, body = NEW, payload()
    world.builds.fail = BuildFailed("does not compile")
    await named.pushes.take("encode", github(body), body)
    done = await over(named)
    assert (done.state, done.why, named.get("encode").commit) == (PushState.stayed, "does not compile", OLD)
    assert named.get("encode").trouble == "does not compile"
    printed = [b"--- PASS: ExampleA (0.00s)\nPASS\n", b"--- FAIL: ExampleA (0.00s)\ngot:\n1\nFAIL\n"]
    world.driver.script = lambda _: Script(stdout=printed[0], exit_code=int(b"FAIL" in printed[0]))
    remote.commit = OLD
    await named.define("encode", structs.replace(ENCODE, verify=True))
    printed.pop(0)
    remote.commit = NEW
    await named.pushes.take("encode", github(body, "2"), body)
    done = await over(named)
    assert (done.state, named.get("encode").commit) == (PushState.stayed, OLD)
    assert "ExampleA" in done.why
    printed[0] = b"--- PASS: ExampleA (0.00s)\nPASS\n"
    await named.pushes.take("encode", github(body, "3"), body)
    assert (await over(named)).state == PushState.moved
    assert (named.get("encode").commit, named.get("encode").verified) == (NEW, 1)


async def test_pushes_during_a_look_have_one_more(
    world: World, remote: Remote, named: NamedFunctions
) -> None:
    remote.commit = NEW
    bodies = [payload(after=f"{number:040x}") for number in range(4)]
    for number, body in enumerate(bodies):
        await named.pushes.take("encode", github(body, str(number)), body)
    assert (await over(named)).commit == NEW
    assert [one.why for one in await named.history("encode")] == ["pushed", "defined"]
    # What its server's references do not show yet is asked for again by the next call.
    assert remote.doubted == [URL] * 7


async def test_who_does_not_know_the_secret_has_nothing_looked_at(
    remote: Remote, named: NamedFunctions
) -> None:
    body = payload()
    for headers in (
        [],
        github(body, secret="another"),
        github(b"{}"),
        [*github(body), (b"x-hub-signature-256", b"sha256=" + signed(body))],
    ):
        with pytest.raises(Forbidden) as refused:
            await named.pushes.take("encode", headers, body)
        assert SECRET not in refused.value.message
    with pytest.raises(NameNotFound):
        await named.pushes.take("nobody", github(body), body)
    await named.define("quiet", structs.replace(ENCODE, push=None))
    with pytest.raises(NotFound, match="define it with push"):
        await named.pushes.take("quiet", github(body), body)
    assert (remote.doubted, named.get("encode").pushed) == ([], None)


@pytest.mark.parametrize(
    ("body", "event", "why"),
    [
        (payload(), "ping", "'ping', which is no push"),
        (payload(), "pull_request", "which is no push"),
        (payload(repository="https://github.com/u/other.git"), "push", "none of github.com/u/r"),
        (payload(repository="https://evil.example/github.com/u/r.git"), "push", "none of github.com/u/r"),
        (payload("refs/heads/dev"), "push", "no name follows refs/heads/dev"),
        (payload("refs/tags/v1.0.0"), "push", "no name follows refs/tags/v1.0.0"),
        (b"{}", "push", "none of github.com/u/r"),
    ],
)
async def test_what_concerns_no_name_says_why_it_is_idle(
    remote: Remote, named: NamedFunctions, body: bytes, event: str, why: str
) -> None:
    remote.commit = NEW
    told = await named.pushes.take("encode", github(body, event=event), body)
    assert (told.state, told.names, await over(named)) == (PushState.idle, (), told)
    assert why in told.why
    assert (remote.doubted, named.get("encode").commit) == ([], OLD)


@pytest.mark.parametrize(
    "ref",
    [
        "", "main", "refs/", "refs/heads", "refs/heads/", "/heads/main", "refs//main", "refs/heads/../../etc",
        "refs/heads/-x\n\0", "refs/heads/-x", "refs/heads/main\n",
        "refs/heads/a.lock", "refs/heads/a b", "refs/heads/@{0}", "refs/tags/.v1",
    ],
)  # fmt: skip
async def test_what_is_no_reference_asks_nobody(remote: Remote, named: NamedFunctions, ref: str) -> None:
    await named.define("encode", structs.replace(ENCODE, version=None))
    remote.commit, body = NEW, payload(ref)
    told = await named.pushes.take("encode", github(body), body)
    assert (told.state, told.names, await over(named)) == (PushState.idle, (), told)
    assert told.why == f"its ref is {ref!r}, which is no branch or tag of Git's"
    assert (remote.doubted, named.get("encode").commit) == ([], OLD)


async def test_a_pinned_name_says_that_it_is(remote: Remote, named: NamedFunctions) -> None:
    await named.define("encode", structs.replace(ENCODE, pin=True))
    body = payload()
    told = await named.pushes.take("encode", github(body), body)
    assert (told.state, "pinned" in told.why) == (PushState.idle, True)


async def test_gitea_and_gitlab_and_forms(remote: Remote, named: NamedFunctions) -> None:
    for number, (scheme, body, headers) in enumerate(
        [
            (
                Scheme.gitea,
                payload(),
                [(b"x-gitea-event", b"push"), (b"x-gitea-signature", signed(payload()))],
            ),
            (
                Scheme.gitlab,
                json.dumps(
                    {"ref": "refs/heads/main", "project": {"git_http_url": "https://github.com/u/r.git"}}
                ).encode(),
                [
                    (b"x-gitlab-event", b"Push Hook"),
                    (b"x-gitlab-token", SECRET.encode()),
                    (b"idempotency-key", b"key-1"),
                    (b"x-gitlab-event-uuid", b"another"),
                ],
            ),
            (
                Scheme.github,
                (form := urlencode({"payload": payload().decode()}).encode()),
                github(form),
            ),
        ]
    ):
        await named.define("encode", structs.replace(ENCODE, push=Webhook(scheme=scheme, secret="HOOK")))
        remote.commit = f"{number + 1:040x}"
        told = await named.pushes.take("encode", headers, body)
        assert told.state == PushState.taken, told
        assert told.delivery == {Scheme.gitlab: "key-1", Scheme.github: "1"}.get(
            scheme, hashlib.sha256(body).hexdigest()
        )
        assert (await over(named)).state == PushState.moved
    with pytest.raises(BadRequest, match="github, gitea, gitlab"):
        await named.define(
            "encode", structs.replace(ENCODE, push=Webhook(scheme=Scheme.stripe, secret="HOOK"))
        )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://github.com/U/R.git", "github.com/u/r"),
        ("git@github.com:U/R.git", "github.com/u/r"),
        ("ssh://git@github.com/u/r", "github.com/u/r"),
        ("https://token:x@git.example:3000/u/r/", "git.example:3000/u/r"),
        ("git.example:3000/u/r", "git.example:3000/u/r"),
        ("file:///srv/r.git", "/srv/r"),
        ("", ""),
    ],
)
def test_a_repository_is_known_by_each_of_its_urls(url: str, expected: str) -> None:
    assert bare(url) == expected


@pytest.mark.parametrize(
    ("version", "moved_by"),
    [
        (None, {"refs/heads/main", "refs/heads/v1", "refs/tags/main", "refs/tags/v1.2.0"}),
        ("main", {"refs/heads/main", "refs/tags/main"}),
        ("refs/heads/main", {"refs/heads/main"}),
        ("v1", {"refs/heads/v1", "refs/tags/main", "refs/tags/v1.2.0"}),
        ("latest", {"refs/tags/main", "refs/tags/v1.2.0"}),
        ("feature/x", set()),
    ],
)
def test_which_references_a_version_may_mean(version: str | None, moved_by: set[str]) -> None:
    refs = {"refs/heads/main", "refs/heads/v1", "refs/tags/main", "refs/tags/v1.2.0", ""}
    revision = revision_of(structs.replace(ENCODE, version=version))
    assert {ref for ref in refs if ref and concerns(revision, ref)} == moved_by


@given(st.binary(max_size=300))
def test_no_body_breaks_the_reader(body: bytes) -> None:
    for text in (body, b'{"ref":' + body, b'{"repository":{"clone_url":' + body + b"}}", b"payload=" + body):
        try:
            read_payload(text)
        except BadRequest as refused:
            assert len(refused.message) < 400  # noqa: PT017 - a refusal is one of two right answers


def test_what_is_no_push_is_refused() -> None:
    deep: Any = b'{"x":' + b"[" * 100_000
    for body in (b"", b"[]", b'{"ref": 1}', b'{"ref": "' + b"x" * 400 + b'"}', deep):
        with pytest.raises(BadRequest, match="no push as GitHub"):
            read_payload(body)
