"""Packages by the names that people write, against real Git and pages of hosts of every kind."""

from __future__ import annotations

import contextlib
import gzip
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from skyisland.errors import BadRequest, IslandError, SourceRefused, SourceUnavailable
from skyisland.settings import Credential
from skyisland.sources.vanity import PAGE_BYTES
from tests.support.upstream import URL, Quiet, Repository, Room, Server, backend, forge_lookup, room

BOTH = ("https", "http")


async def test_major_versions_in_import_paths(
    state_dir: Path, repository: Repository, mirrored: dict[str, str]
) -> None:
    (repository.path / "sub").mkdir()
    (repository.path / "sub/s.go").write_text("package sub\n")

    def release(tag: str, module: str) -> str:
        commit = repository.commit(go_mod=f"module {module}\n", a_go=f"package a // {tag}\n")
        repository.git("tag", tag)
        return commit

    release("v1.0.0", URL)
    first, second = release("v2.0.0", f"{URL}/v2"), release("v2.3.0", f"{URL}/v2")
    release("v4.0.0", f"{URL}/v4")
    third = release("v3.0.0", f"{URL}/v3")
    tip = repository.commit(a_go="package a // after v3.0.0\n")
    async with room(state_dir, mirrored) as it:
        for url, version, commit, package in [
            (f"{URL}/v3", None, tip, ""),  # the default branch is of this version
            (f"{URL}/v3/sub", None, tip, "sub"),
            (f"{URL}/v3/sub@latest", None, third, "sub"),
            (f"{URL}/v2", None, second, ""),  # it is not, but there are releases
            (f"{URL}/v2/sub", None, second, "sub"),
            (f"{URL}/v2@v2.0.0", None, first, ""),
            (f"pkg.go.dev/{URL}/v2@v2.0.0/sub", None, first, "sub"),
            (f"{URL}/v2", "v2", second, ""),
            (f"{URL}/sub", "latest", (await it.get(version="v4.0.0")).commit, "sub"),
            ("gopkg.in/user/repo.v2/sub", None, second, "sub"),
            ("gopkg.in/user/repo.v2@latest", None, second, ""),
            ("gopkg.in/user/repo.v2@v2.0.0", None, first, ""),
        ]:
            source = await it.get(url, version)
            assert (source.url, source.commit, source.package) == (URL, commit, package), url
        for url in (f"{URL}/v5", f"{URL}/sub/v2"):
            with pytest.raises(BadRequest, match=r"has no release of .*v[25], nor such a folder") as refusal:
                await it.get(url)
            assert ("; there are releases of v4, v3, v2, v1" in refusal.value.message) == url.endswith("v5")
            assert refusal.value.details == {"field": "url"}
        # A folder of that name is what it says, and a mark settles it.
        (repository.path / "v5").mkdir()
        (repository.path / "v5/x.go").write_text("package v5\n")
        repository.commit()
        assert (await it.get(f"{URL}/v5", refresh=True)).package == "v5"
        assert (await it.get(f"{URL}//v3")).package == "v3"


async def test_pages_in_a_browser(state_dir: Path, repository: Repository, served: Server) -> None:
    between = repository.git("rev-parse", "HEAD")
    for folder in ("tree/avl", "src/branch/other"):
        (repository.path / folder).mkdir(parents=True)
        (repository.path / folder / "x.go").write_text("package x\n")
    repository.commit(a_go="package a // main\n")
    repository.git("config", "uploadpack.allowFilter", "true")
    repository.git("checkout", "--quiet", "-b", "feature/x")
    feature = repository.commit(a_go="package a // feature\n")
    repository.git("checkout", "--quiet", "main")
    tip = repository.git("rev-parse", "HEAD")
    async with room(state_dir, served.rewrite) as it:
        for url, commit, package in [
            (f"https://{URL}/tree/feature/x/sub/deep?tab=readme#readme", feature, "sub/deep"),
            (f"https://{URL}/blob/feature/x/sub/a.go#L3", feature, "sub"),
            (f"https://{URL}/tree/main", tip, ""),
            (f"{URL}/tree/avl/sub", tip, "tree/avl/sub"),  # no such version: a folder
            (f"{URL}/tree/{feature[:8]}/sub", feature, "sub"),
            (f"{URL}@feature/x", feature, ""),
            (f"{URL}@{between[:8]}", between, ""),  # of the history, which is fetched without files
            (f"{URL}/commit/{feature[:8]}", feature, ""),
            ("git@github.com:user/repo.git", tip, ""),
            ("git.test/user/repo/-/tree/feature/x/sub", feature, "sub"),
            ("git.test/user/repo/src/branch/feature/x/sub", feature, "sub"),
            ("git.test/user/repo/src/branch/other/sub", tip, "src/branch/other/sub"),
        ]:
            resolved = await it.sources.resolve(url, None)
            assert (resolved.commit, resolved.package) == (commit, package), url
            served.asked.clear()
            assert await it.sources.resolve(url, None) == resolved
            assert served.asked == [], "what a URL means is remembered"
        for url in (f"{URL}@featur", f"{URL}/blob/featur/sub/x.go"):
            with pytest.raises(BadRequest, match=r"no branch or tag 'featur.*; there is feature/x"):
                await it.get(url)
        # A commit that moves is asked for anew by whichever name.
        repository.git("checkout", "--quiet", "feature/x")
        moved = repository.commit()
        assert (await it.sources.resolve(f"{URL}/tree/feature/x", None, refresh=True)).commit == moved
        assert (await it.sources.resolve(f"{URL}/tree/feature/x/sub/deep", None)).commit == moved


async def test_an_ordinary_call_asks_no_more_than_before(state_dir: Path, served: Server, forge: str) -> None:
    async with room(state_dir, served.rewrite, lookup=forge_lookup) as it:
        await it.get()
        assert [line for line in served.asked if "go-get" in line] == []
        assert [line.partition(" ")[0] for line in served.asked] == ["GET", "POST", "fetch", "POST"]


class Pages(Quiet):
    """A host of import paths: `pages` has what it says of each, as bytes or where it redirects to."""

    pages: dict[str, bytes | str]

    def do_GET(self) -> None:
        said = self.pages.get(urlsplit(self.path).path)
        if isinstance(said, str):
            self.answer(302, Location=said)
        elif said is not None and "go-get=1" in self.path:
            self.answer(200, said)
        else:
            self.answer(404)


def port_of(server: Server) -> str:
    return server.address.rpartition(":")[2]


def tag(*words: str) -> bytes:
    return f'<meta name="go-import" content="{" ".join(words)}">\n'.encode()


async def test_paths_whose_host_says_where_the_repository_lies(
    state_dir: Path, repository: Repository, forge: str
) -> None:
    (repository.path / "sub").mkdir()
    (repository.path / "sub/s.go").write_text("package sub\n")
    tip = repository.commit()

    class Mine(Pages):
        pages: dict[str, bytes | str] = {}  # noqa: RUF012 - each test has its own class

    with Server(backend(state_dir / "srv"), forge) as git, Server(Mine, forge) as pages:
        host = f"vanity.test:{port_of(pages)}"
        name = f"http://forge.test:{port_of(git)}/user/repo"
        Mine.pages |= {
            "/x/lib": tag(f"{host}/x/lib", "git", f"{name}.git"),
            "/x/lib/sub": tag(f"{host}/other", "git", "https://elsewhere.test/x")
            + tag(f"{host}/x/lib", "hg", "https://hg.test/x")
            + tag(f"{host}/x/lib", "git", name),
            "/part": tag(f"{host}/part", "git", name, "sub"),
            "/moved": f"http://vanity.test:{port_of(pages)}/x/lib?go-get=1",
            "/hg": tag(f"{host}/hg", "hg", "https://hg.test/x"),
        }
        async with room(state_dir, {}, lookup=forge_lookup, allowed_schemes=BOTH) as it:
            for path in ("x/lib", "x/lib/sub", "part", "x/lib/sub@main"):
                package = "" if path == "x/lib" else "sub"
                source = await it.get(f"http://{host}/{path}")
                assert (source.url, source.commit, source.package) == (name, tip, package)
            asked = len(pages.asked)
            for path in ("x/lib", "x/lib/sub", "part"):
                await it.get(f"http://{host}/{path}")
            assert len(pages.asked) == asked, "a page is trusted as long as a branch"
            with pytest.raises(BadRequest, match="served by 'hg', and not by Git"):
                await it.get(f"http://{host}/hg")
            with pytest.raises(SourceUnavailable, match="no repository"):  # a page of another path's
                await it.get(f"http://{host}/moved")
            await it.get(f"http://{host}/x/lib", refresh=True)
            # What a page said serves while the host is out of reach.
            Mine.pages.clear()
            pages.__exit__()
            assert (await it.get(f"http://{host}/x/lib", refresh=True)).commit == tip
            with pytest.raises(SourceUnavailable):
                await it.get(f"http://{host}/x/unknown")
            with contextlib.suppress(RuntimeError):
                pages.__enter__()


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (("git", "ext::sh -c true"), None),
        (("git", "ext::sh"), "remote helpers"),
        (("git", "file:///etc"), "'file' is not permitted"),
        (("git", "ssh://git@forge.test/x"), "must not have a user"),
        (("git", "git://forge.test/x"), "'git' is not permitted"),
        (("git", "http://127.0.0.1/user/repo"), "not on the public Internet"),
        (("git", "http://inner.test:{inner}/user/repo"), "not on the public Internet"),
        (("git", "https://forge.test/x", "../../etc"), "cannot be a part of its path"),
        (("git", "--upload-pack=x"), "is not a host name"),
    ],
)
async def test_what_a_page_names_passes_what_a_callers_url_must(
    state_dir: Path, served: Server, forge: str, page: tuple[str, ...], reason: str | None
) -> None:
    class Mine(Pages):
        pages: dict[str, bytes | str] = {}  # noqa: RUF012

    with Server(Mine, forge) as pages:
        host = f"vanity.test:{port_of(pages)}"
        words = [word.format(inner=port_of(served)) for word in page]
        Mine.pages["/x"] = tag(f"{host}/x", *words)
        async with room(state_dir, {}, lookup=forge_lookup, allowed_schemes=(*BOTH, "ssh")) as it:
            for version in (None, "a" * 40):
                with pytest.raises(IslandError, match=reason) as refusal:
                    await it.get(f"http://{host}/x", version)
                assert isinstance(refusal.value, SourceRefused if reason else SourceUnavailable)
    assert served.asked == []


async def test_pages_that_lead_astray(state_dir: Path, served: Server, forge: str) -> None:
    repositories = tag("vanity.test/x", "git", f"http://{served.address}/user/repo")

    class Mine(Pages):
        pages: dict[str, bytes | str] = {  # noqa: RUF012
            "/inner": f"http://inner.test:{port_of(served)}/user/repo",
            "/literal": f"http://127.0.0.1:{port_of(served)}/user/repo",
            "/loop": "/loop?go-get=1",
            "/file": "file:///etc/passwd",
            "/bomb": gzip.compress(repositories + b" " * (64 << 20)),
            "/late": b" " * PAGE_BYTES + repositories,
        }

        def do_GET(self) -> None:
            if self.path == "/endless?go-get=1":
                self.send_response(200)
                self.end_headers()
                with contextlib.suppress(OSError):
                    while True:
                        self.wfile.write(b"<meta " * 1000)
            else:
                super().do_GET()

    with Server(Mine, forge) as pages:
        host = f"vanity.test:{port_of(pages)}"
        async with room(state_dir, {}, lookup=forge_lookup, allowed_schemes=BOTH, timeout=5) as it:
            for path in ("inner", "literal"):
                with pytest.raises(SourceRefused, match="not on the public Internet"):
                    await it.get(f"http://{host}/{path}")
            for path in ("loop", "file", "bomb", "late", "endless"):
                with pytest.raises(SourceUnavailable):
                    await it.get(f"http://{host}/{path}")
    assert served.asked == []


async def test_a_page_decides_for_its_own_path_alone(
    state_dir: Path, repository: Repository, forge: str
) -> None:
    """Two users of one host: neither says where the other's packages lie."""
    shutil.copytree(repository.path, state_dir / "srv/evil/repo")

    class Mine(backend(state_dir / "srv")):  # type: ignore[misc]
        def do_GET(self) -> None:
            if "go-get=1" in self.path and self.path.startswith("/evil"):
                host = self.headers["Host"]
                self.answer(200, tag(f"{host}", "git", f"http://{host}/evil/repo"))
            else:
                super().do_GET()

        do_POST = do_GET

    with Server(Mine, forge) as server:
        host = f"http://forge.test:{port_of(server)}"
        async with room(state_dir, {}, lookup=forge_lookup, allowed_schemes=BOTH) as it:
            await resolved(it, f"{host}/evil/thing", f"{host}/evil/repo", "evil/thing")
            await resolved(it, f"{host}/user/repo/sub", f"{host}/user/repo", "sub")


async def test_a_page_opens_no_private_repository(state_dir: Path, forge: str) -> None:
    """A stranger's page may name what only some may call: these read it, and nobody else."""

    class Page(Quiet):
        def do_GET(self) -> None:
            self.answer(200, tag(self.headers["Host"] + "/x", "git", "https://private.test/user/repo"))

    token = state_dir / "token"
    token.write_text("secret")
    token.chmod(0o600)
    options: dict[str, Any] = {"credentials": {"https://private.test/": Credential(token=str(token))}}
    with Server(Page, forge) as server:
        url = f"http://forge.test:{port_of(server)}/x"
        async with room(state_dir, {}, lookup=forge_lookup, allowed_schemes=BOTH, **options) as it:
            with pytest.raises(SourceRefused, match=r"private\.test/user/repo may be private"):
                await it.sources.resolve(url, None, client="192.0.2.1")
            with pytest.raises(SourceRefused, match="not on the public Internet"):  # it is looked for
                await it.sources.resolve(url, None, client="alice")


async def resolved(it: Room, url: str, name: str, package: str) -> None:
    found = await it.sources.resolve(url, None)
    assert (found.url, found.package) == (name, package)
