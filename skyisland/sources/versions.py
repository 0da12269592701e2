"""What a version means among the references that a server lists. Pure: no disk, no network.

    (none), HEAD                    the default branch
    main, feature/x, v1.2.3         a branch, or else a tag
    1.2.3                           the tag `1.2.3`, or else `v1.2.3`; and the other way round
    v1, 1.2                         a branch or tag of that name, or else the highest release v1.x.y, v1.2.x
    latest                          the highest release, or else the default branch
    refs/heads/x, refs/tags/x       that one
    pull/7/head                     a request to merge
    0123abc…                        a commit; of fewer than forty digits, if nothing else has that name

A release is a tag of three numbers (semver.org), with or without `v`; one with a suffix (`-rc1`) counts only
where there is no other. Like Go, a module in a folder has tags of its own, `folder/v1.2.3`: they come before
the repository's for a package in that folder. A *series* is what an import path makes of `/v3` in it: `/v3`,
or `/folder/v3`, the highest release of that major version. No caller can write one as a version.
"""

from __future__ import annotations

import difflib
import re
from functools import lru_cache

from skyisland.errors import BadRequest, SourceUnavailable

VERSION_LIMIT = 255
"""Bytes: Git stores a reference as a file, and a file name has 255 bytes at most."""
MAX_MODULES = 8
"""How many folders above a package may be modules with tags of their own. A judgement."""
MAX_COMPARED = 2000
"""How many names a wrong one is compared with: 20 ms."""
LONGEST_SHOWN = 100
"""Characters of a name of a branch or tag that an error may show."""
MAJORS_NAMED = 5
"""How many major versions are offered for one that is not there."""
NEAR = 3
"""How many names are offered for a wrong one."""
DEFAULT_BYTES = 1 << 16
"""How much of a listing is searched for the default branch, which Git lists first."""
KEYS_CACHED = 4096
"""How many keys of versions are remembered. A judgement: at 2 KiB each, 8 MiB at worst."""
SHORTEST_COMMIT = 7
"""Digits of a short commit: as many as Git itself prints at least."""

_COMMIT = re.compile(r"[0-9a-fA-F]{40}")
_SHORT = re.compile(rf"[0-9a-fA-F]{{{SHORTEST_COMMIT},39}}")
_REQUEST = re.compile(r"(pull|merge-requests)/[1-9][0-9]{0,9}/(head|merge)")
_NOT_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[-./]|[./]$|/\.|\.lock(/|$)|^@$")
_RELEASE = re.compile(r"v?(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:-([0-9A-Za-z.-]+))?")
_PART = re.compile(r"v?(\d{1,9})(?:\.(\d{1,9}))?")
_SERIES = re.compile(r"/(?:(.+)/)?v(\d{1,9})")
_TAG = re.compile(rb"^([0-9a-f]{40,64})\trefs/tags/([^\n^]*)(\^\{\})?$", re.MULTILINE)
_BRANCH = re.compile(rb"^[0-9a-f]{40,64}\trefs/heads/([^\n]*)$", re.MULTILINE)
_REFERENCE = re.compile(rb"^([0-9a-f]{40})\trefs/((?:heads|tags)/[^\n^]*)(?:\^\{\})?$", re.MULTILINE)
_DEFAULT = re.compile(rb"^ref: refs/heads/([^\n\t]*)\tHEAD$", re.MULTILINE)


def check_version(version: str, field: str = "version") -> None:
    """Check that a version can be a branch, a tag or a commit, by the rules of git-check-ref-format(1).

    Raises:
        BadRequest: it cannot.
    """
    if not version:
        raise BadRequest(f"{field}: has an empty version; leave it out for the default branch", field=field)
    if (
        len(version.encode("utf-8", "surrogatepass")) > VERSION_LIMIT
        or not version.isprintable()
        or _NOT_IN_REF.search(version)
    ):
        raise BadRequest(
            f"{field}: {version[:80]!r} is not the name of a branch or tag, nor a commit", field=field
        )


def normal(version: str | None) -> str | None:
    """The shortest name of a checked version; None is the default branch."""
    if version is None or version == "HEAD":
        return None
    if is_commit(version):
        return version.lower()
    request = version.removeprefix("refs/")
    return request if is_request(request) else version


def is_commit(version: str) -> bool:
    """Whether a version is a full commit hash. A branch or a tag can move, a hash cannot."""
    return _COMMIT.fullmatch(version) is not None


def is_short(version: str) -> bool:
    """Whether a version may be the beginning of a commit hash."""
    return _SHORT.fullmatch(version) is not None


def is_request(version: str) -> bool:
    """Whether a version is a request to merge: `pull/7/head` of GitHub and Gitea, `merge-requests/7/head` of
    GitLab. Anybody may make one, so its commit is no word of the repository's own."""
    return _REQUEST.fullmatch(version) is not None


def is_release(version: str) -> bool:
    """Whether a version is that of one release: `v1.2.3`, `1.2.3-rc1`."""
    return _RELEASE.fullmatch(version) is not None


def series(folder: str, major: int) -> str:
    """The series of a major version of the module in a folder, "" for the repository's root."""
    return f"/{folder}/v{major}" if folder else f"/v{major}"


def is_wide(version: str | None) -> bool:
    """Whether all tags must be looked at."""
    return version is not None and _wanted(version) is not None


@lru_cache(maxsize=KEYS_CACHED)
def key_of(version: str | None, package: str) -> str:
    """What the commit of a version is remembered by, for a package: only releases differ by package."""
    if version is None:
        return ""
    if not package:
        return version
    numbered = version == "latest" or is_release(version) or _PART.fullmatch(version)
    return f"/{package}@{version}" if numbered else version


def refs_of(version: str | None, package: str = "") -> tuple[str, ...]:
    """The references that a version of a package may mean, for `git ls-remote`; always with HEAD."""
    if version is None:
        return ("HEAD",)
    wanted = _wanted(version)
    patterns: list[str] = []
    if wanted is not None:
        for prefix in prefixes_of(version, package):
            # `*` of ls-remote matches whatever follows: `_releases` looks closer.
            patterns += [f"refs/tags/{prefix}{head}" for head in _heads(wanted)]
    return ("HEAD", *exact(version, package), *patterns)


def exact(version: str, package: str = "") -> tuple[str, ...]:
    """The references that a version names itself, in order of precedence. A tag is peeled to its commit."""
    if match := _SERIES.fullmatch(version):
        version = f"v{match[2]}"
        package = match[1] or ""
        if package:
            return ()
    if version.startswith(("refs/heads/", "refs/tags/")):
        names = [version]
    else:
        tags = [version]
        if is_release(version):
            tags = [f"{prefix}{version}" for prefix in prefixes_of(version, package)]
            other = version[1:] if version.startswith("v") else f"v{version}"
            tags += [f"{prefix}{other}" for prefix in prefixes_of(version, package)]
        names = [f"refs/heads/{version}", *(f"refs/tags/{tag}" for tag in tags)]
    refs = [form for ref in names for form in _forms(ref)]
    return (*refs, f"refs/{version}") if is_request(version) else tuple(refs)


def _forms(ref: str) -> tuple[str, ...]:
    """How `git ls-remote` lists a reference: of a tag, the commit first that it was peeled to."""
    return (f"{ref}^{{}}", ref) if ref.startswith("refs/tags/") else (ref,)


def _wanted(version: str) -> tuple[int, ...] | None:
    """The leading numbers of the releases that a version means: () for every one; None if it means none."""
    if version == "latest":
        return ()
    if match := _SERIES.fullmatch(version):
        return (int(match[2]),)
    if match := _PART.fullmatch(version):
        return tuple(int(number) for number in match.groups() if number is not None)
    return None


def _heads(wanted: tuple[int, ...]) -> tuple[str, str]:
    text = "".join(f"{number}." for number in wanted) or "[0-9]"
    return f"v{text}*", f"{text}*"


def prefixes_of(version: str, package: str) -> list[str]:
    """What the tags of a package's release begin with: its folder, or one above, and the root's nothing."""
    if match := _SERIES.fullmatch(version):
        return [f"{match[1]}/" if match[1] else ""]
    parts = package.split("/") if package else []
    return ["/".join(parts[:depth]) + "/" for depth in range(min(len(parts), MAX_MODULES), 0, -1)] + [""]


def commit_among(listing: bytes, version: str | None, package: str = "") -> str | None:
    """The commit of a version in the output of `git ls-remote`; None if the version is not in it.

    Raises:
        SourceUnavailable: the repository names its objects by SHA-256.
    """
    if version is None:
        return commit_at(listing, "HEAD")
    wanted = _wanted(version)
    if wanted is None:
        return first(listing, version, package)
    # Whoever writes `v1` may mean a branch or tag of just that name; `latest` and import paths mean releases.
    release = version == "latest" or version.startswith("/")
    if not release and (commit := first(listing, version, package)):
        return commit
    if commit := _highest(listing, wanted, prefixes_of(version, package)):
        return commit
    if release and (commit := first(listing, version, package)):
        return commit
    return commit_at(listing, "HEAD") if version in ("latest", "/v0") else None


def first(listing: bytes, version: str, package: str = "") -> str | None:
    """The commit of the first reference in the listing that the version names itself."""
    return next(filter(None, (commit_at(listing, ref) for ref in exact(version, package))), None)


def commit_at(listing: bytes, ref: str) -> str | None:
    """The commit of one reference in the output of `git ls-remote`.

    Raises:
        SourceUnavailable: see `commit_among`.
    """
    # A server may list references without end: searched for the few that count, not read into a table.
    name, end = b"\t" + ref.encode() + b"\n", -1
    while (end := listing.find(name, end + 1)) >= 0:
        said = listing[listing.rfind(b"\n", 0, end) + 1 : end]
        if not said.startswith(b"ref: "):
            return _checked(said)
    return None


def _checked(said: bytes) -> str:
    commit = said.decode("ascii", "replace")
    if not is_commit(commit):
        raise SourceUnavailable("the repository uses SHA-256 object names, which are not supported yet")
    return commit


def default_branch(listing: bytes) -> str | None:
    """The name of the default branch in the output of `git ls-remote --symref`; None if it does not say."""
    match = _DEFAULT.search(listing[:DEFAULT_BYTES])
    return match[1].decode(errors="replace") if match else None


# Releases


def _highest(listing: bytes, wanted: tuple[int, ...], prefixes: list[str]) -> str | None:
    """The commit of the highest release, of the first prefix that has one."""
    best: dict[str, tuple[_Order, bytes]] = {}
    for match in _TAG.finditer(listing):
        tag = match[2].decode(errors="replace")
        folder, slash, last = tag.rpartition("/")
        prefix = folder + slash
        if prefix not in prefixes or (release := _RELEASE.fullmatch(last)) is None:
            continue
        order = _order(release)
        if order[1][: len(wanted)] != wanted:
            continue
        known = best.get(prefix)
        # The line of the commit that a tag was peeled to follows that of the tag.
        if known is None or order > known[0] or (order == known[0] and match[3]):
            best[prefix] = (order, match[1])
    return next((_checked(best[prefix][1]) for prefix in prefixes if prefix in best), None)


_Order = tuple[bool, tuple[int, int, int], tuple[tuple[bool, int, str], ...]]


def _order(release: re.Match[str]) -> _Order:
    """What releases are sorted by: a whole one before any other, then by its numbers, then by its suffix."""
    numbers = (int(release[1]), int(release[2]), int(release[3]))
    return (release[4] is None, numbers, suffix_parts(release[4]))


def suffix_parts(suffix: str | None) -> tuple[tuple[bool, int, str], ...]:
    """What the suffixes of releases are sorted by: part for part, a number before a text."""
    return tuple(_suffix_part(part) for part in suffix.split(".")) if suffix else ()


def _suffix_part(part: str) -> tuple[bool, int, str]:
    number = part.isdigit() and part.isascii() and len(part) < 10
    return (not number, int(part) if number else 0, "" if number else part)


# Names that come close


def branches_among(listing: bytes) -> list[str]:
    """The names of the branches in the output of `git ls-remote`, those that can be shown."""
    names = (match[1].decode(errors="replace") for match in _BRANCH.finditer(listing))
    return [name for name in names if _is_shown(name)]


def majors_among(listing: bytes, wanted: str) -> list[str]:
    """The major versions of which there are releases, beside those of a series; the highest first."""
    (prefix,) = prefixes_of(wanted, "")
    tags = (match[2].decode(errors="replace") for match in _TAG.finditer(listing))
    releases = (_RELEASE.fullmatch(tag[len(prefix) :]) for tag in tags if tag.startswith(prefix))
    majors = {int(release[1]) for release in releases if release is not None}
    return [f"v{major}" for major in sorted(majors, reverse=True)[:MAJORS_NAMED]]


def _is_shown(name: str) -> bool:
    """Whether a server's name for something is fit for an error's text."""
    return name.isprintable() and len(name) < LONGEST_SHOWN


def near(version: str, listing: bytes) -> list[str]:
    """The branches and tags in the output of `git ls-remote` whose names come close to `version`."""
    tags = [match[2].decode(errors="replace") for match in _TAG.finditer(listing) if not match[3]]
    return nearest(
        version.removeprefix("refs/heads/").removeprefix("refs/tags/"), branches_among(listing) + tags
    )


def nearest(wrong: str, names: list[str]) -> list[str]:
    """The names that come close to a wrong one, the closest first; of very many, the last are compared."""
    shown = dict.fromkeys(name for name in names[-MAX_COMPARED:] if _is_shown(name))
    folded = {name.casefold(): name for name in shown}
    close = difflib.get_close_matches(wrong[:LONGEST_SHOWN].casefold(), list(folded), NEAR, 0.6)
    return [folded[name] for name in close]


def begun_by(digits: str, listing: bytes) -> set[str]:
    """The commits of branches and tags in the output of `git ls-remote` that begin with these digits."""
    commits = {match[2]: match[1] for match in _REFERENCE.finditer(listing)}  # a tag's own comes first
    return {commit.decode() for commit in commits.values() if commit.startswith(digits.lower().encode())}
