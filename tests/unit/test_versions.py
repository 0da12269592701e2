"""Which commit a version is, among the references that a server lists."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyisland.errors import SourceUnavailable
from skyisland.sources.versions import (
    MAX_MODULES,
    begun_by,
    branches_among,
    commit_among,
    default_branch,
    is_wide,
    key_of,
    majors_among,
    near,
    nearest,
    normal,
    refs_of,
    series,
)


def hash_of(ref: str) -> str:
    return ref.encode().hex()[-40:].rjust(40, "0")


def listed(*refs: str, head: str = "refs/heads/main") -> bytes:
    """What `git ls-remote --symref` prints; `x^{}` is a tag's commit."""
    lines = [f"ref: {head}\tHEAD", f"{hash_of(head)}\tHEAD", *(f"{hash_of(ref)}\t{ref}" for ref in refs)]
    return "\n".join([*lines, ""]).encode()


RELEASES = (
    "v1.0.0 v1.9.0 v1.10.0 v1.11.0-rc.1 v1 1.2.0 v2.0.0-alpha v2.0.0-beta.2 v2.0.0-beta.11 v3.1.0 v3.1.0^{}"
)
TAGS = [f"refs/tags/{tag}" for tag in (*RELEASES.split(), "sub/v1.4.0")]
OTHERS = ("refs/heads/main", "refs/heads/v3", "refs/heads/1.2", "refs/tags/sub/v2.0.0", "refs/tags/nightly")


@pytest.mark.parametrize(
    ("version", "package", "ref"),
    [
        (None, "", "refs/heads/main"),
        ("main", "", "refs/heads/main"),
        ("refs/heads/main", "", "refs/heads/main"),
        ("refs/tags/v3.1.0", "", "refs/tags/v3.1.0^{}"),
        ("latest", "", "refs/tags/v3.1.0^{}"),
        ("v1", "", "refs/tags/v1"),  # a tag of just that name
        ("v3", "", "refs/heads/v3"),
        ("1", "", "refs/tags/v1.10.0"),
        ("1.2", "", "refs/heads/1.2"),
        ("v1.9", "", "refs/tags/v1.9.0"),
        ("v1.2", "", "refs/tags/1.2.0"),
        ("v2", "", "refs/tags/v2.0.0-beta.11"),  # no whole release, so the highest of the others
        ("v1.11", "", "refs/tags/v1.11.0-rc.1"),
        ("1.9.0", "", "refs/tags/v1.9.0"),
        ("v1.2.0", "", "refs/tags/1.2.0"),
        ("v1.11.0-rc.1", "", "refs/tags/v1.11.0-rc.1"),
        # An import path asks for releases.
        (series("", 3), "", "refs/tags/v3.1.0^{}"),
        (series("sub", 2), "sub/v2/x", "refs/tags/sub/v2.0.0"),
        (series("", 0), "", "refs/heads/main"),
        # A module in a folder has tags of its own.
        ("latest", "sub/deep", "refs/tags/sub/v2.0.0"),
        ("v1.4.0", "sub", "refs/tags/sub/v1.4.0"),
        ("v1", "other", "refs/tags/v1"),
        ("1", "sub/deep", "refs/tags/sub/v1.4.0"),
        ("v1.9.0", "sub/deep", "refs/tags/v1.9.0"),
        ("nope", "", None),
        ("v4", "", None),
        ("v1.9.1", "", None),
        (series("sub", 3), "", None),
    ],
)
def test_what_a_version_is(version: str | None, package: str, ref: str | None) -> None:
    assert commit_among(listed(*TAGS, *OTHERS), version, package) == (ref and hash_of(ref))
    # Git prints no more than it is asked for: what ends in one of the names, `*` being anything.
    asked = [f"*/{name}" for name in refs_of(version, package)]
    printed = [one for one in (*TAGS, *OTHERS) if any(fnmatch.fnmatch(f"/{one}", name) for name in asked)]
    assert commit_among(listed(*printed), version, package) == (ref and hash_of(ref))


def test_without_a_release_the_latest_is_the_default_branch() -> None:
    listing = listed("refs/heads/trunk", "refs/tags/v1", "refs/tags/x/v1.2.3", head="refs/heads/trunk")
    assert commit_among(listing, "latest") == hash_of("refs/heads/trunk")
    assert default_branch(listing) == "trunk"
    assert default_branch(b"") is None


def test_a_branch_of_the_name_of_a_major_version_serves_where_there_is_no_release() -> None:
    assert commit_among(listed("refs/heads/v2"), series("", 2)) == hash_of("refs/heads/v2")
    assert commit_among(listed("refs/heads/v2"), series("sub", 2)) is None


def test_only_commits_of_sha1_are_taken() -> None:
    with pytest.raises(SourceUnavailable, match="SHA-256"):
        commit_among(f"{'a' * 64}\trefs/tags/v1.0.0\n".encode(), "latest")


def test_what_is_asked_for_stays_short() -> None:
    assert refs_of(None) == ("HEAD",)
    assert refs_of("x") == ("HEAD", "refs/heads/x", "refs/tags/x^{}", "refs/tags/x")
    assert len(refs_of("v1", "a/" * 500 + "a")) < 4 * MAX_MODULES + 8
    assert [is_wide(version) for version in (None, "main", "v1.2.3", "v1", "latest", "/v2")] == [
        *(False, False, False),
        *(True, True, True),
    ]


def test_a_version_is_remembered_by_package_only_where_that_matters() -> None:
    assert [key_of(version, "sub") for version in (None, "main", "v1.2.3", "latest", "/v2")] == [
        "",
        "main",
        "/sub@v1.2.3",
        "/sub@latest",
        "/v2",
    ]
    assert key_of("v1.2.3", "") == "v1.2.3"


def test_one_name_for_what_means_the_same() -> None:
    given_ = ("HEAD", None, "refs/pull/7/head", "refs/heads/HEAD", "A" * 40)
    assert [normal(version) for version in given_] == [
        None,
        None,
        "pull/7/head",
        "refs/heads/HEAD",
        "a" * 40,
    ]


def test_names_that_come_close() -> None:
    listing = listed(
        "refs/heads/master", "refs/heads/feature/split", "refs/tags/v1.2.3", "refs/tags/v1.2.3^{}"
    )
    assert near("v1.2.4", listing) == ["v1.2.3"]
    assert near("refs/heads/Master", listing) == ["master"]
    assert near("zzz", listing) == []
    assert branches_among(listing) == ["master", "feature/split"]
    assert majors_among(listed(*TAGS, *OTHERS), series("", 7)) == ["v3", "v2", "v1"]
    assert majors_among(listed(*TAGS, *OTHERS), series("sub", 7)) == ["v2", "v1"]


def test_what_a_server_calls_its_branches_is_shown_without_tricks() -> None:
    listing = listed(
        "refs/heads/\x1b]52;c;evil\x07", "refs/heads/a\u202eb", f"refs/heads/{'x' * 500}", "refs/heads/ok"
    )
    assert branches_among(listing) == ["ok"]
    assert near("okk", listing) == ["ok"]
    assert nearest("x\x1b", ["x\x1b", "y" * 200]) == []


def test_a_tag_counts_as_the_commit_that_it_is_peeled_to() -> None:
    listing = f"{'ab' * 20}\trefs/tags/x\n{'cd' * 20}\trefs/tags/x^{{}}\n{'ce' * 20}\trefs/heads/y\n".encode()
    assert begun_by("abababa", listing) == set()
    assert begun_by("CDCDCDC", listing) == {"cd" * 20}
    assert begun_by("c", listing) == {"cd" * 20, "ce" * 20}


numbers = st.tuples(*[st.integers(0, 30)] * 3)


@given(st.lists(numbers, min_size=1, max_size=20))
def test_the_latest_is_the_highest(releases: list[tuple[int, int, int]]) -> None:
    tags = {release: "refs/tags/v{}.{}.{}".format(*release) for release in releases}
    assert commit_among(listed(*tags.values()), "latest") == hash_of(tags[max(releases)])
    major = releases[0][0]
    highest = max(release for release in releases if release[0] == major)
    assert commit_among(listed(*tags.values()), f"v{major}") == hash_of(tags[highest])
