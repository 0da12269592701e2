"""What a caller writes, what Git says: the pure side of the source room."""

from __future__ import annotations

import string
import subprocess
import sys
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyisland.errors import BadRequest, SourceRefused, SourceUnavailable
from skyisland.host import outbound
from skyisland.host.outbound import Refused
from skyisland.host.recent import Recent
from skyisland.model import Resolved, Source
from skyisland.sources.git import Trouble, trouble_of
from skyisland.sources.mirror import check_tree, folder_of
from skyisland.sources.remotes import presentable
from skyisland.sources.url import Remote, covers, moved, parse_url, pin, remote_of
from skyisland.sources.versions import check_version, commit_among, is_commit
from tests.support.upstream import Room

HTTPS = ("https",)
ALL = ("https", "http", "ssh", "file")
A, B, C = "a" * 40, "b" * 40, "c" * 40


# Repositories on record


def test_a_commit_on_record_is_named_again_without_asking_anybody(tmp_path: Path) -> None:
    made = Room(tmp_path, {})
    place = made.sources.recorded("example.com/a/b", "sub", A)
    assert place == Resolved(url="example.com/a/b", package="sub", commit=A, version=A, named=False)


def test_a_repository_on_record_must_still_be_permitted(tmp_path: Path) -> None:
    made = Room(tmp_path, {}, allowed_schemes=("https",))
    with pytest.raises(SourceRefused, match="the scheme 'http' is not permitted"):
        made.sources.recorded("http://example.com/a/b", "", A)


# URLs


def test_a_prefix_covers_whole_segments_in_any_case_that_its_host_takes() -> None:
    for prefix, url, covered in [
        ("https://github.com/you/", "https://github.com/you/secret", True),
        ("https://github.com/you", "https://GitHub.com/YOU/Secret.git", True),
        ("https://github.com/you/secret", "https://github.com/you/secret.git", True),
        ("https://github.com/you/secret.git", "https://github.com/you/secret/sub", True),
        ("https://github.com/you/secret", "https://github.com/you/secret2", False),
        ("https://github.com/you/", "https://github.com/your/secret", False),
        ("https://github.com/you/", "http://github.com/you/secret", False),
        ("https://github.com/you/", "https://github.com.evil.org/you/secret", False),
        ("https://git.example.org/you/", "https://git.example.org/YOU/secret", False),
        ("ssh://git@github.com/you/", "ssh://git@github.com/You/secret", True),
        ("ssh://git@github.com/you/", "ssh://root@github.com/you/secret", False),
    ]:
        assert covers(prefix, url) is covered, (prefix, url)
    # A rewrite, too: both names have one mirror.
    rewrites = [("https://github.com/you/", "ssh://git@github.com/you/")]
    assert remote_of("github.com/YOU/x", rewrites).url == "ssh://git@github.com/you/x"


@pytest.mark.parametrize(
    ("url", "name", "package"),
    [
        ("github.com/user/repo", "github.com/user/repo", ""),
        ("GitHub.com/user/Repo", "github.com/user/Repo", ""),
        ("https://github.com/user/repo", "github.com/user/repo", ""),
        ("HTTPS://github.com/user/repo/", "github.com/user/repo", ""),
        ("github.com/user/repo.git", "github.com/user/repo", ""),
        ("github.com/user/repo.git/sub/sub2", "github.com/user/repo", "sub/sub2"),
        ("github.com/user/repo/sub", "github.com/user/repo", "sub"),
        ("github.com/user/repo//sub", "github.com/user/repo", "sub"),
        ("github.com/user/repo/dir.git", "github.com/user/repo", "dir.git"),
        ("git.sr.ht/~user/repo", "git.sr.ht/~user/repo", ""),
        ("gitlab.com/group/sub/repo.git/pkg", "gitlab.com/group/sub/repo", "pkg"),
        ("gitlab.com/group/sub/repo.git//pkg", "gitlab.com/group/sub/repo", "pkg"),
        ("gitlab.com/group/sub/repo//pkg/x", "gitlab.com/group/sub/repo", "pkg/x"),
        ("http://github.com/user/repo", "http://github.com/user/repo", ""),
        ("https://git.example.org:8443/repo.git", "git.example.org:8443/repo", ""),
        ("ssh://example.org/user/repo.git/p", "ssh://example.org/user/repo", "p"),
        ("file:///srv/git/repo.git/p", "file:///srv/git/repo", "p"),
        ("file:///srv/git//p", "file:///srv/git", "p"),
    ],
)
def test_forms_of_urls(url: str, name: str, package: str) -> None:
    address = parse_url(url, ALL)
    assert list(address.candidates()) == [name]
    assert address.package(name) == package


@pytest.mark.parametrize(
    ("url", "package", "path"),
    [
        ("github.com/user/repo", "sub", "github.com/user/repo/sub"),
        ("http://example.org:8080/repo", "", "example.org/repo"),
        ("example.org:8443/repo", "p", "example.org/repo/p"),
        ("file:///srv/git/repo", "p", "srv/git/repo/p"),
    ],
)
def test_a_name_makes_an_import_path(url: str, package: str, path: str) -> None:
    assert Source(url=url, package=package, commit=A, checkout=Path("x")).import_path == path


def test_a_host_of_unknown_depth_leaves_its_prefixes_shortest_first() -> None:
    address = parse_url("gitlab.com/group/sub/repo", HTTPS)
    names = ["gitlab.com/group", "gitlab.com/group/sub", "gitlab.com/group/sub/repo"]
    assert list(address.candidates()) == names
    assert [address.package(name) for name in names] == ["sub/repo", "repo", ""]
    assert len(list(parse_url("example.org" + "/x" * 50, HTTPS).candidates())) == 10


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        "repo",
        "user/repo",
        "/srv/repo",
        "./repo",
        "../repo",
        "github.com",
        "github.com/",
        "github.com/user",
        "github.com//user/repo",
        "github.com/user/..",
        "github.com/user/../../etc",
        "github.com/user/repo/..",
        "github.com/user/repo/...",
        "github.com/user/repo/.git",
        "github.com/user/.git",
        "github.com/user/%2e%2e/x",
        "github.com/user/repo%0a",
        "github.com/user/repo\n",
        "github.com/user/repo\r\nHost: x",
        "github.com/user/re po",
        "github.com/user/repo\x00",
        "github.com/user/repo?x=1",
        "github.com/user/repo#v1",
        "github.com/user/-repo",
        "github.com/--upload-pack=touch/x",
        "--upload-pack=touch",
        "-github.com/user/repo",
        "github.com/user/r\u00e9po",
        "github.com/user/repo\u202e",
        "github.com\\user\\repo",
        "https://[::1]/user/repo",
        "https:///user/repo",
        "file://host/srv/repo",
        "https://github.com:0/user/repo",
        "https://github.com:/user/repo",
        "https://$(id)/user/repo",
        "https://-oProxyCommand=x/user/repo",
        "github.com/" + "x" * 3000 + "/y",
    ],
)
def test_malformed_urls_are_the_callers_mistake(url: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        parse_url(url, ALL)
    assert refusal.value.details == {"field": "url"}


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("ext::sh -c touch% /tmp/x", "remote helpers"),
        ("fd::17/foo", "remote helpers"),
        ("git@github.com:user/repo.git", r"\[git\] rewrite"),
        ("https://user:secret@github.com/user/repo", r"\[git\] rewrite"),
        ("https://github.com@127.0.0.1/user/repo", r"\[git\] rewrite"),
        ("github.com/user/repo@v1", "a version as github"),
        ("http://github.com/user/repo", r"\[git\] allowed_schemes"),
        ("file:///etc/passwd", r"\[git\] allowed_schemes"),
        ("ssh://github.com/user/repo", r"\[git\] allowed_schemes"),
        ("git://github.com/user/repo", r"\[git\] allowed_schemes"),
        ("javascript://github.com/user/repo", r"\[git\] allowed_schemes"),
    ],
)
def test_what_the_settings_do_not_permit_is_refused_with_the_remedy(url: str, remedy: str) -> None:
    with pytest.raises(SourceRefused, match=remedy) as refusal:
        parse_url(url, HTTPS)
    assert "secret" not in refusal.value.message


@given(
    st.text(max_size=60) | st.text("abz019./:-_~@%?#\\ gith", max_size=40).map("https://github.com/".__add__)
)
def test_whatever_is_written_becomes_harmless_or_is_refused(url: str) -> None:
    try:
        address = parse_url(url, ALL)
        names = list(address.candidates())
        remote = remote_of(names[-1], ())
    except (BadRequest, SourceRefused):
        return
    harmless = set(string.ascii_letters + string.digits + "._~+-/:")
    assert set(remote.url) <= harmless
    assert remote.url.startswith(("https://", "http://", "ssh://", "file:///"))
    assert not any(part.startswith("-") or ".." in part for part in remote.url.split("/"))
    for name in names:
        package = address.package(name)
        assert not package.startswith(("/", "-"))
        assert f"{name}/{package}".rstrip("/") == address.name(len(address.segments))


segment = st.from_regex(r"[A-Za-z0-9_~][A-Za-z0-9_~+-]{0,20}", fullmatch=True)


@given(segment, segment, st.lists(segment, max_size=4))
def test_every_spelling_of_a_repository_has_one_name(user: str, repo: str, package: list[str]) -> None:
    path = "/".join((user, repo))
    sub = "".join(f"/{part}" for part in package)
    for url in (
        f"github.com/{path}{sub}",
        f"https://github.com/{path}{sub}",
        f"https://GITHUB.com/{path}.git{sub}/",
        f"github.com/{path}/{sub}" if sub else f"github.com/{path}/",
    ):
        address = parse_url(url, HTTPS)
        (name,) = address.candidates()
        assert name == f"github.com/{path}"
        assert address.package(name) == sub[1:]


@given(st.lists(st.tuples(segment, segment), min_size=2, max_size=2, unique=True))
def test_two_repositories_never_share_a_folder(pair: list[tuple[str, str]]) -> None:
    first, second = (folder_of(f"example.org/{user}/{repo}") for user, repo in pair)
    assert first != second
    assert "/" not in first


def test_a_folder_is_never_taken_for_something_half_made() -> None:
    assert not folder_of("sky-0123456789abcdef").startswith("sky-")


# Remotes


def test_the_first_rewrite_that_fits_wins_and_any_scheme_is_the_operators_choice() -> None:
    rewrites = (
        ("https://github.com/user/", "ssh://git@mirror/u/"),
        ("https://github.com/", "file:///srv/mirror/"),
    )
    assert remote_of("github.com/user/repo", rewrites).url == "ssh://git@mirror/u/repo"
    mirrored = remote_of("github.com/other/repo", rewrites)
    assert mirrored == Remote("file:///srv/mirror/other/repo", "file", rewritten=True)
    assert not mirrored.public_only
    direct = remote_of("codeberg.org/user/repo", rewrites)
    assert direct == Remote("https://codeberg.org/user/repo", "https", False, "codeberg.org", 443)
    assert direct.public_only
    assert remote_of("http://example.org:8080/r", (), ".git").port == 8080


@pytest.mark.parametrize("prefix", ["https://github.com", "https://github.com/"])
def test_a_rewrite_ends_where_a_part_of_the_path_ends(prefix: str) -> None:
    rewrites = ((prefix, "file:///srv"),)
    assert remote_of("github.com/user/repo", rewrites).url == "file:///srv/user/repo"
    assert remote_of("github.com.evil.org/user/repo", rewrites).scheme == "https"


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "git.localhost",
        "127.0.0.1",
        "10.1.2.3",
        "192.168.0.1",
        "169.254.169.254",
        "0.0.0.0",  # noqa: S104
        "100.64.1.1",
    ],
)
def test_private_hosts_are_refused_unless_the_operator_names_them(host: str) -> None:
    name = f"{host}/user/repo"
    with pytest.raises(SourceRefused, match=r"\[git\] rewrite"):
        remote_of(name, ())
    itself = f"https://{host}/"
    assert remote_of(name, ((itself, itself),)).url == f"https://{name}"


def test_git_is_held_to_the_addresses_that_were_looked_at() -> None:
    remote = remote_of("example.org/repo", ())
    assert pin(remote, ["140.82.121.4", "2606:50c0:8000::154"], ()) == (
        "example.org:443:140.82.121.4,2606:50c0:8000::154"
    )
    with pytest.raises(SourceRefused, match=r"10\.0\.0\.1"):
        pin(remote, ["140.82.121.4", "10.0.0.1"], ())
    with pytest.raises(SourceRefused, match=r"140\.82"):
        pin(remote, ["140.82.121.4"], [IPv4Network("140.82.121.0/24")])


@pytest.mark.parametrize(
    "location",
    [
        "http://example.org/user/new/info/refs?service=git-upload-pack",
        "https://u@example.org/user/new/info/refs?service=git-upload-pack",
        "https://example.org/user/new",
        "https://example.org/a%20b /info/refs?service=git-upload-pack",
        "https://example.org:99999/user/new/info/refs?service=git-upload-pack",
        "https://[::1]/user/new/info/refs?service=git-upload-pack",
        "file:///etc/info/refs?service=git-upload-pack",
        "//" + "a" * 3000,
        "https://[",
    ],
)
def test_redirects_that_are_not_followed(location: str) -> None:
    with pytest.raises(Refused):
        moved(remote_of("example.org/user/old", ()), location)


def test_whoever_chose_a_remote_its_redirect_to_another_host_is_a_strangers_choice() -> None:
    tail = "/info/refs?service=git-upload-pack"
    remote = moved(remote_of("example.org/user/old", ()), f"/user/new{tail}")
    assert (remote.url, remote.public_only) == ("https://example.org/user/new", True)
    own = remote_of("example.org/user/old", (("https://example.org/", "http://git.lan:81/"),))
    assert not moved(own, f"http://git.lan:81/user/new{tail}").public_only
    for elsewhere in ("https://git.lan:81", "http://git.lan", "http://git.lan:82", "http://other.lan:81"):
        assert moved(own, f"{elsewhere}/user/new{tail}").public_only


async def test_a_pinned_request_goes_to_the_address_and_names_the_host() -> None:
    request = outbound.pinned("https://example.org:8443/a?b", ["2606:50c0:8000::154"])
    assert str(request.url) == "https://[2606:50c0:8000::154]:8443/a?b"
    assert request.headers["Host"] == "example.org:8443"
    assert request.extensions["sni_hostname"] == "example.org"

    async def rebinding(host: str, port: int) -> list[str]:
        return ["140.82.121.4", "10.0.0.1"]

    with pytest.raises(Refused, match=r"10\.0\.0\.1"):
        await outbound.public_addresses("example.org", 443, rebinding)


def test_where_case_counts_for_nothing_there_is_one_mirror() -> None:
    assert folder_of("github.com/User/Repo") == folder_of("github.com/user/repo")
    assert folder_of("example.org/User/repo") != folder_of("example.org/user/repo")


def test_what_strangers_name_is_forgotten_again() -> None:
    recent: Recent[str, int] = Recent(2)
    recent["a"], recent["b"] = 1, 2
    assert recent.get("a") == 1
    recent["c"] = 3
    assert ("a" in recent, "b" in recent, len(recent)) == (True, False, 2)
    assert (recent.pop("a"), recent.pop("a")) == (1, None)


# Versions


@pytest.mark.parametrize(
    "version", ["main", "v1.2.3", "feature/x-y_z", "1", A, "go1.25", "é", "HEAD", "a@b", "x+y"]
)
def test_versions(version: str) -> None:
    check_version(version)


@pytest.mark.parametrize(
    "version",
    [
        "",
        "--upload-pack=x",
        "-x",
        "a..b",
        "@{",
        "a@{1}",
        "@",
        "a b",
        "a\n",
        "\x00",
        "a\x7f",
        "a:b",
        "a^",
        "a~1",
        "a?",
        "*",
        "refs/heads/*",
        "a[b",
        "a\\b",
        "/a",
        "a/",
        "a//b",
        ".a",
        "a/.b",
        "a.",
        "a.lock",
        "a.lock/b",
        "a\u202eb",
        "a\u200bb",
        "\ud800",
        "x" * 256,
    ],
)
def test_what_can_be_no_version(version: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        check_version(version)
    assert refusal.value.details == {"field": "version"}


@given(st.text(max_size=12) | st.text("a.@{/-~^:* \\lock", max_size=8))
def test_an_accepted_version_makes_one_reference(version: str) -> None:
    try:
        check_version(version)
    except BadRequest:
        return
    assert not version.startswith("-")
    assert not set(version) & set(" ~^:?*[\\\n\t\x00")


def test_full_commits() -> None:
    assert is_commit(A)
    assert is_commit("A" * 40)
    assert not is_commit("a" * 39)
    assert not is_commit(A + "\n")
    assert not is_commit("g" * 40)


def test_a_branch_comes_before_a_tag_and_a_tag_is_peeled() -> None:
    tag = f"{A}\trefs/tags/x\n{B}\trefs/tags/x^{{}}\n"
    assert commit_among(tag.encode(), "x") == B
    assert commit_among(f"{tag}{C}\trefs/heads/x\n".encode(), "x") == C
    assert commit_among(f"{A}\trefs/tags/x\n".encode(), "x") == A


def test_only_the_very_reference_counts() -> None:
    listing = f"{A}\trefs/remotes/origin/HEAD\n{B}\trefs/x/refs/heads/main\n".encode()
    assert commit_among(listing, None) is None
    assert commit_among(listing, "main") is None
    assert commit_among(b"garbage\n\xff\xfe", "main") is None


def test_sha256_repositories_are_told_apart() -> None:
    with pytest.raises(SourceUnavailable, match="SHA-256"):
        commit_among(f"{'a' * 64}\tHEAD\n".encode(), None)


# What Git says


@pytest.mark.parametrize(
    ("said", "trouble"),
    [
        ("fatal: repository 'https://example.org/x/' not found", Trouble.missing),
        (
            "fatal: could not read Username for 'https://github.com': terminal prompts disabled",
            Trouble.missing,
        ),
        ("fatal: '/srv/x' does not appear to be a git repository", Trouble.missing),
        ("fatal: unable to access 'https://e/': The requested URL returned error: 403", Trouble.missing),
        ("fatal: unable to access 'https://e/': The requested URL returned error: 301", Trouble.moved),
        ("fatal: unable to access 'https://e/': The requested URL returned error: 500", Trouble.other),
        ("fatal: unable to access 'https://e/': Could not resolve host: e", Trouble.other),
        (f"fatal: remote error: upload-pack: not our ref {A}", Trouble.no_commit),
        ("error: Server does not allow request for unadvertised object " + A, Trouble.only_whole),
        ("fatal: dumb http transport does not support shallow capabilities", Trouble.only_whole),
        ("fatal: attempting to allocate 400000000 over limit 268435456", Trouble.too_large),
        ("", Trouble.other),
    ],
)
def test_reading_gits_words(said: str, trouble: Trouble) -> None:
    assert trouble_of(said) is trouble


def test_what_git_says_is_shown_without_the_mirror_and_without_tricks() -> None:
    remote = "file:///srv/secret/user/repo"
    said = (
        "hint: noise\nfatal: '/srv/secret/user/repo' and https://tok@host/x\n"
        "remote: \x1b]52;c;evil\x07\u202e\r\n"
    )
    shown = presentable(said, remote, "github.com/user/repo")
    assert shown.isprintable()
    assert "secret" not in shown
    assert "tok" not in shown
    assert "noise" not in shown
    assert shown.startswith("fatal: 'github.com/user/repo'")
    assert len(presentable("x" * 9999, remote, "n")) <= 400


# Trees


def listing(*files: tuple[str, str]) -> bytes:
    return b"".join(f"100644 blob {A} {size:>7}\t{path}\0".encode() for path, size in files)


def test_a_tree_within_limits_passes() -> None:
    files = listing(("a\nb", "10"), ("sub", "-"), ("sub\t/x", "5000"), ("module", "-"))
    blocks = 1 + 1 + 1 + 2 + 1
    assert check_tree("r", files, blocks * 4096, 4) == blocks * 4096
    assert check_tree("r", b"", 4096, 0) == 4096


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([("a", "1"), ("b", "4097")], "max_size"),
        ([("a", "0"), ("b", "0"), ("c", "0")], "max_size"),
        ([(f"{number}", "0") for number in range(5)], "max_files"),
        ([("d/" * 101 + "f", "1")], "deeper"),
        ([("x" * 1025, "1")], "deeper"),
    ],
)
def test_a_tree_beyond_limits_is_refused(files: list[tuple[str, str]], reason: str) -> None:
    with pytest.raises(SourceRefused, match=reason):
        check_tree("r", listing(*files), 3 * 4096, 4)


def test_to_import_gitpython_runs_no_git(tmp_path: Path) -> None:
    """It would run with the daemon's environment."""
    git = tmp_path / "git"
    git.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    git.chmod(0o755)
    code = "from skyisland.sources import git; print(git._git_program(), git._gitpython().__name__)"
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == [str(git), "Git"], done.stderr
    assert not (tmp_path / "ran").exists()
