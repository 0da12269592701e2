"""URLs as people write them, import paths, and the pages that say where their repositories lie."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyisland.errors import BadRequest, IslandError, SourceRefused
from skyisland.host.tree import Tree
from skyisland.sources.places import Place, major_of, package_folder
from skyisland.sources.url import parse_url, remote_of
from skyisland.sources.vanity import MAX_TAGS, PAGE_BYTES, GoImport, go_imports, gopkg_place
from skyisland.sources.versions import check_version
from skyisland.sources.written import Written, read

HTTPS = ("https",)
R = "github.com/user/repo"


def told(written: Written) -> tuple[str, str | None]:
    return written.url.name(len(written.url.segments)), written.version


@pytest.mark.parametrize(
    ("url", "name", "version"),
    [
        (R, R, None),
        (f"{R}@v1.2.3", R, "v1.2.3"),
        (f"{R}/sub@latest", f"{R}/sub", "latest"),
        (f"https://{R}/sub@master", f"{R}/sub", "master"),
        (f"{R}@0123abcd", R, "0123abcd"),
        (f"{R}@{'A' * 40}/sub", f"{R}/sub", "a" * 40),
        (f"{R}@v1.2.3/sub/deep", f"{R}/sub/deep", "v1.2.3"),
        (f"{R}?tab=readme-ov-file", R, None),
        (f"https://{R}/?tab=readme-ov-file#readme", R, None),
        (f"{R}#1-what-it-does", R, None),
        (f"{R}?ref=v1.2.3", R, "v1.2.3"),
        ("https://cgit.example.org/repo/?h=dev", "cgit.example.org/repo", "dev"),
        (f"https://www.{R}.git", R, None),
        ("git@github.com:user/repo.git", R, None),
        ("git@gitlab.com:group/sub/repo", "gitlab.com/group/sub/repo", None),
        (f"https://pkg.go.dev/{R}/v3@v3.1.0/sub?tab=doc#Name.Method", f"{R}/v3/sub", "v3.1.0"),
        ("pkg.go.dev/golang.org/x/text/cases", "golang.org/x/text/cases", None),
        (f"{R}/commit/0123abcd", R, "0123abcd"),
        (f"{R}/releases/tag/v1.2.3", R, "v1.2.3"),
        (f"{R}/releases/tag/sub%2Fv1.2.3", R, "sub/v1.2.3"),
        (f"{R}/pull/7/files", R, "pull/7/head"),
        (f"https://{R}/tree/v1.2.3/sub", f"{R}/sub", "v1.2.3"),
        (f"https://{R}/blob/{'a' * 40}/sub/x.go#L10-L20", f"{R}/sub", "a" * 40),
        (f"https://{R}/tree/HEAD/sub", f"{R}/sub", None),
        ("https://gitlab.com/g/s/r/-/tree/main?ref_type=heads", "gitlab.com/g/s/r", "main"),
        ("https://gitlab.com/g/s/r/-/tags/v1.0.0", "gitlab.com/g/s/r", "v1.0.0"),
        ("https://gitlab.com/g/s/r/-/merge_requests/7/diffs", "gitlab.com/g/s/r", "merge-requests/7/head"),
        ("https://gitlab.com/g/s/r/-/issues", "gitlab.com/g/s/r", None),
        ("https://git.sr.ht/~u/r/tree/main/item/sub/x.go", "git.sr.ht/~u/r/sub", "main"),
        ("https://git.sr.ht/~u/r/refs/v1.0.0", "git.sr.ht/~u/r", "v1.0.0"),
        ("https://codeberg.org/u/r/pulls/7", "codeberg.org/u/r", "pull/7/head"),
        (f"{R}/tree", f"{R}/tree", None),
        (f"{R}//tree/main", f"{R}/tree/main", None),
        (f"{R}.git/tree/main", f"{R}/tree/main", None),
        (f"{R}/tree/a%23b", R, "a#b"),
        (f"{R}/pull/requests", f"{R}/pull/requests", None),
    ],
)
def test_what_a_text_tells_alone(url: str, name: str, version: str | None) -> None:
    written = read(url, None, HTTPS)
    assert (*told(written), written.rest) == (name, version, ())


@pytest.mark.parametrize(
    ("url", "name", "versions", "otherwise"),
    [
        (f"{R}/tree/feature/x/sub", R, ["feature", "feature/x", "feature/x/sub"], f"{R}/tree/feature/x/sub"),
        (f"https://{R}/blob/main/sub/x.go?plain=1#L3", R, ["main", "main/sub"], f"{R}/blob/main/sub/x.go"),
        (f"{R}/tree/a@v1.0.0", R, ["a@v1.0.0"], f"{R}/tree/a"),
        (f"{R}/sub@feature/x", f"{R}/sub", ["feature", "feature/x"], None),
        (
            "codeberg.org/u/r/src/branch/main",
            "codeberg.org/u/r",
            ["main"],
            "codeberg.org/u/r/src/branch/main",
        ),
        ("git.example.org/u/r/src/tag/x", "git.example.org/u/r", ["x"], "git.example.org/u/r/src/tag/x"),
        ("bitbucket.org/u/r/src/a/b", "bitbucket.org/u/r", ["a", "a/b"], "bitbucket.org/u/r/src/a/b"),
        ("gitlab.com/g/s/r/-/blob/a/b/x.go", "gitlab.com/g/s/r", ["a", "a/b"], None),
        (
            "go.googlesource.com/text/+/refs/heads/master/cases",
            "go.googlesource.com/text",
            ["refs", "refs/heads", "refs/heads/master", "refs/heads/master/cases"],
            None,
        ),
    ],
)
def test_where_a_version_ends_may_be_open(
    url: str, name: str, versions: list[str], otherwise: str | None
) -> None:
    written = read(url, None, HTTPS)
    assert told(written) == (name, None)
    assert written.versions() == versions
    assert (written.otherwise and told(written.otherwise)[0]) == otherwise
    assert told(written.split(len(written.rest))) == (name, "/".join(written.rest))


def test_a_version_beside_the_url_settles_it() -> None:
    assert told(read(f"{R}/tree/feature/x/sub", "feature/x", HTTPS)) == (f"{R}/sub", "feature/x")
    assert told(read(f"{R}/tree/feature/x", "v1", HTTPS)) == (f"{R}/tree/feature/x", "v1")
    assert told(read(f"{R}@v1", "v1", HTTPS)) == (R, "v1")
    for url in (f"{R}@v1", f"{R}@a/b", f"{R}?ref=x", f"{R}/releases/tag/v1.0.0"):
        with pytest.raises(BadRequest, match="leave one of them out") as refusal:
            read(url, "v2", HTTPS)
        assert refusal.value.details == {"field": "version"}


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("./mine", r'rewrite = \{"https://my\.example/"'),
        ("../mine", "folder of your own machine"),
        ("~/mine", "folder of your own machine"),
        ("/srv/mine", "folder of your own machine"),
        ("https://pkg.go.dev/encoding/json", "Go's standard library"),
        (f"{R}#v1.2", "write a version as @v1.2"),
        (f"{R}@", "empty version"),
        (f"{R}@--upload-pack=x", "not the name of a branch"),
        (f"{R}@a..b", "not the name of a branch"),
        (f"{R}/tree/%2e%2e/x", "not the name of a branch"),
        (f"{R}/releases/tag/-x", "not the name of a branch"),
        (f"{R}?ref=a..b", "not the name of a branch"),
        (f"{R}@v1.0.0/..", "cannot be a part of its path"),
        (f"https://{R}/tree/main/a%2fb/", "cannot be a part of its path"),
        (f"{R}?{'a=1&' * 60}", "too many fields"),
        (f"{R}@{'x' * 3000}", "at most 2048"),
        (f"{R}{'/x' * 200}", "more than 120 parts"),
    ],
)
def test_what_is_refused(url: str, remedy: str) -> None:
    with pytest.raises(BadRequest, match=remedy) as refusal:
        read(url, None, HTTPS).split(1)
    assert refusal.value.details == {"field": "url"}


@pytest.mark.parametrize(
    "url",
    [
        "https://user:secret@github.com/user/repo",
        "https://github.com@127.0.0.1/user/repo",
        "ext::sh -c touch% /x",
    ],
)
def test_users_and_helpers_are_refused(url: str) -> None:
    with pytest.raises(SourceRefused) as refusal:
        read(url, None, HTTPS)
    assert "secret" not in refusal.value.message


PARTS = "https:// git@ github.com pkg.go.dev / // a - + tree blob src branch item .git @ v1.2.3 v2 ?ref= #"
parts = st.sampled_from([*PARTS.split(), "%2e%2e", "%2f", "..", ":", "refs", "\u202e", " ", "\n"])


@given(st.lists(parts, max_size=14).map("".join), st.sampled_from([None, "v1", "a"]))
def test_whatever_is_written_becomes_harmless_or_is_refused(url: str, version: str | None) -> None:
    try:
        written = read(url, version, HTTPS)
        readings = [written.split(count) for count in range(1, len(written.versions()) + 1)] or [written]
    except IslandError:
        return
    for reading in [*readings, *([written.otherwise] if written.otherwise else [])]:
        for name in reading.url.candidates():
            parse_url(name, HTTPS)
            assert remote_of(name, ()).url.startswith("https://")
        package = reading.url.package(name)
        assert not package.startswith(("/", "-"))
        assert ".." not in package
        if reading.version is not None:
            check_version(reading.version)


# Import paths


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("yaml.v3", Place("github.com/go-yaml/yaml", "", "/v3", literal=True)),
        ("user/pkg.v2/sub", Place("github.com/user/pkg", "sub", "/v2", literal=True)),
        ("check.v1-unstable", Place("github.com/go-check/check", "", "/v1", literal=True)),
        ("user/pkg", None),
        ("user/deep/pkg.v1", None),
    ],
)
def test_paths_of_gopkg_in(path: str, place: Place | None) -> None:
    assert gopkg_place(parse_url(f"gopkg.in/{path}", HTTPS)) == place


@pytest.mark.parametrize(
    ("package", "files", "folder"),
    [
        ("v3", {"go.mod": "module github.com/u/r/v3\n", "x.go": ""}, ""),
        ("v3/sub", {"go.mod": '// v\nmodule "github.com/u/r/v3"\n', "sub/x.go": ""}, "sub"),
        ("v3", {"go.mod": "module github.com/u/r\n", "v3/go.mod": "module github.com/u/r/v3\n"}, "v3"),
        ("v3/sub", {"go.mod": "module github.com/u/r/v3\n", "v3/sub/x.go": ""}, "v3/sub"),
        ("v3/sub", {"go.mod": "module github.com/u/r/v3\n", "v3/sub/x.go": "", "sub/x.go": ""}, "sub"),
        ("v3", {"go.mod": "module github.com/u/r/v2\n", "x.go": ""}, None),
        ("v3", {"x.go": ""}, None),
        ("v3", {"v3/x.go": ""}, "v3"),
        (
            "sub/v2/deep",
            {"go.mod": "module r\n", "sub/go.mod": "module r/sub/v2\n", "sub/deep/x.go": ""},
            "sub/deep",
        ),
        ("v3", {"go.mod": "module gopkg.in/r.v3", "x.go": ""}, ""),
    ],
)
def test_a_major_version_in_an_import_path(
    tmp_path: Path, package: str, files: dict[str, str], folder: str | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    major = major_of(Place("github.com/u/r", package))
    assert major is not None
    assert package_folder(Tree(tmp_path), major) == folder


def test_only_short_urls_are_kept_in_memory() -> None:
    long = f"{R}/{'x' * 100}/{'y' * 100}"
    assert read(long, None, HTTPS) is not read(long, None, HTTPS)
    assert read(R, None, HTTPS) is read(R, None, HTTPS)


def test_what_is_no_major_version() -> None:
    for package in ("", "v1", "v0", "v", "vx", "v2beta", "sub", "v01"):
        assert major_of(Place("github.com/u/r", package)) is None
    assert major_of(Place("github.com/u/r", "v2", literal=True)) is None
    major = major_of(Place("github.com/u/r", "a/v2/b/v3"))
    assert major is not None
    assert (major.series, major.stripped, major.whole) == ("/a/v2", "a/b/v3", "a/v2/b/v3")


# Pages


def test_a_page_of_an_import_path() -> None:
    page = b"""<!DOCTYPE html>
<!-- <meta name="go-import" content="example.org/x git https://example.org/in-a-comment"> -->
<html><head><META NAME=go-import content="example.org/x
   git  https://example.org/r?a=1&amp;b=2" /><meta charset="utf-8"><meta name="go-import" content="one two">
<meta content='example.org/y mod https://proxy' name='go-import'><meta name="go-import"
content="example.org/z git https://example.org/z sub/folder"></head>
<meta name="go-import" content="example.org/x git https://example.org/in-the-body">"""
    assert go_imports(page) == [
        GoImport("example.org/x", "git", "https://example.org/r?a=1&b=2"),
        GoImport("example.org/y", "mod", "https://proxy"),
        GoImport("example.org/z", "git", "https://example.org/z", "sub/folder"),
    ]


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"\xff\xfe",
        b"<meta",
        b"<!-- <meta ",
        b"\x1f\x8b\x08\x00<meta ",
        b"<meta name=go-import content=",
    ],
)
def test_pages_that_say_nothing(page: bytes) -> None:
    assert go_imports(page) == []


def test_only_the_beginning_of_a_page_is_read() -> None:
    tag = b'<meta name="go-import" content="a git b">'
    assert len(go_imports(tag * (2 * MAX_TAGS))) == MAX_TAGS
    assert go_imports(b" " * PAGE_BYTES + tag) == []
    assert go_imports(b"<meta " + b"x" * 3000 + tag) == [GoImport("a", "git", "b")]
