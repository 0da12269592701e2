"""Pushes that a repository's server tells of: whose they are, and which names look at Git because of them.

    signature ─▶ sort of event ─▶ repository and reference ─▶ the remote's word is doubted ─▶ names look

What a push says is believed for no more than where to look: the commit is asked of Git anew, fetched, built
and, where that is wanted, verified as by any other way. So who knows the secret can have the island look, and
no more. A delivery that comes again, as servers send one whose answer was lost, has nothing looked at as long
as it is remembered; its id is not signed, so who has an old push can have the island look by a new id.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Meta, Struct, structs

from skyisland.errors import BadRequest, NotFound
from skyisland.host.recent import Recent
from skyisland.host.tasks import aside
from skyisland.named.definition import Revision
from skyisland.named.following import Following, Told
from skyisland.named.names import Names, current
from skyisland.named.runner import Runner
from skyisland.named.secrets import Secrets
from skyisland.named.webhooks import Scheme, check_signature

log = logging.getLogger(__name__)

REMEMBERED = 10_000
"""Deliveries that are known again when they come again."""
ID_CHARACTERS = 100
"""How much of a delivery's id counts; a UUID has 36."""

FORM = b"payload="
"""What GitHub and Gitea send as a form has one field."""
_SCP = re.compile(r"^([^:/]*):(?![0-9]+/)")
"""`git@host:` of a path; behind a colon may also stand a port."""
_RELEASES = re.compile(r"latest|(?:[^/]+/)*v?\d[\w.+-]*")
"""Versions that tags decide."""
_REFERENCE = re.compile(r"refs/[^/]+/[^-].*", re.DOTALL)
_NOT_IN_REFERENCE = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|[./]$|\.lock(/|$)")
"""By git-check-ref-format(1). `sources.versions` has the same for versions; names stand below it."""

_Text = Annotated[str, Meta(max_length=2048)]


class PushState(StrEnum):
    """What became of a push."""

    idle = "idle"
    """It moves nothing; `why` says the reason."""
    taken = "taken"
    """The names look at Git, and build what is new."""
    moved = "moved"
    stayed = "stayed"
    """`why` says the reason: it does not compile, its Examples do not pass."""


class Pushed(Struct, frozen=True, kw_only=True):
    """A push that a name was told of."""

    at: float
    """When; seconds since the epoch."""
    delivery: str
    """Its id, as the sender has it."""
    ref: str
    """What was pushed: `refs/heads/main`."""
    state: PushState
    why: str
    commit: str
    """Where the branch is, as Git itself says; empty until then."""
    names: tuple[str, ...]
    """All that look because of it: who follow the same repository and reference."""
    again: bool = False
    """It came before; this is what became of it then."""


class _Place(Struct, frozen=True):
    clone_url: _Text = ""
    git_http_url: _Text = ""
    html_url: _Text = ""
    web_url: _Text = ""
    ssh_url: _Text = ""

    def names(self) -> set[str]:
        """The repository by each of its URLs, without what differs between them."""
        return {bare(url) for url in structs.astuple(self) if url}


class _Payload(Struct, frozen=True):
    """What GitHub, Gitea and GitLab agree on, as far as it is read."""

    ref: Annotated[str, Meta(max_length=300)] = ""
    after: Annotated[str, Meta(max_length=64)] = ""
    repository: _Place = _Place()
    project: _Place = _Place()
    """GitLab's."""


_payload = msgspec.json.Decoder(_Payload)
_EVENTS: Mapping[Scheme, tuple[bytes, frozenset[bytes]]] = {
    Scheme.github: (b"x-github-event", frozenset({b"push"})),
    Scheme.gitea: (b"x-gitea-event", frozenset({b"push"})),
    Scheme.gitlab: (b"x-gitlab-event", frozenset({b"Push Hook", b"Tag Push Hook"})),
}
_DELIVERIES: Mapping[Scheme, tuple[bytes, ...]] = {
    Scheme.github: (b"x-github-delivery",),
    Scheme.gitea: (b"x-gitea-delivery",),
    Scheme.gitlab: (b"idempotency-key", b"x-gitlab-event-uuid"),
}


class Pushes:
    """Takes them."""

    def __init__(
        self,
        names: Names,
        secrets: Secrets,
        runner: Runner,
        following: Following,
        clock: Callable[[], float],
    ) -> None:
        self._names, self._secrets, self._runner, self._following = names, secrets, runner, following
        self._clock = clock
        self._seen: Recent[tuple[str, str], Pushed] = Recent(REMEMBERED)
        self._latest: dict[str, Pushed] = {}
        """By the name that was told."""
        self.counted: dict[PushState, int] = dict.fromkeys(PushState, 0)

    def latest(self, name: str) -> Pushed | None:
        """The latest push that the name was told of, in this life of the island."""
        return self._latest.get(name)

    def forget(self, name: str) -> None:
        """It is no name any more."""
        self._latest.pop(name, None)

    async def take(self, name: str, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> Pushed:
        """Have the names look that follow what was pushed. `headers` have names in lower case.

        Raises:
            NotFound: there is no such name, or nobody may tell it of pushes.
            Forbidden: who sent this does not know the secret.
            BadRequest: it is no push of this kind of server.
        """
        revision = current(self._names, name)
        push = revision.definition.push
        if push is None:
            raise NotFound(f"{name} takes no pushes; define it with push to have it do so", name=name)
        ((_, secret),) = self._secrets.values({"": push.secret})
        found = dict(headers)
        # A body of megabytes takes milliseconds to hash, and to read.
        await aside(check_signature, push.scheme, secret, headers, body)
        payload = await aside(read_payload, body)
        delivery = delivery_of(push.scheme, found, body)
        if (before := self._seen.get((name, delivery))) is not None:
            return structs.replace(before, again=True)
        followers = [
            one
            for one in self._names.all()
            if one.repository == revision.repository and one.follows and concerns(one, payload.ref)
        ]
        why = _why_not(revision, push.scheme, found, payload, followers)
        if why:
            followers = []
        told = Pushed(
            at=self._clock(),
            delivery=delivery,
            ref=payload.ref,
            state=PushState.idle if why else PushState.taken,
            why=why,
            commit="",
            names=tuple(one.name for one in followers),
        )
        self._seen[name, delivery] = self._latest[name] = told
        self.counted[told.state] += 1
        log.info("%s was told of a push of %s: %s", name, told.ref, why or f"{', '.join(told.names)} look")
        if followers:
            await self._runner.doubt(revision.repository)
        for one in followers:
            self._following.look(one.name, self._tell(name, told, one, payload.after))
        return told

    def _tell(self, asked: str, told: Pushed, revision: Revision, after: str) -> Told:
        """What one of the names found: remembered for it, and for the delivery if that was its own."""

        async def tell(commit: str, trouble: str) -> None:
            state, why = PushState.moved, ""
            if trouble:
                state, why = PushState.stayed, trouble
            elif commit == revision.commit:
                state, why = PushState.idle, "it is there already"
                if commit != after:  # the server may be ahead of its own references: ask it again
                    await self._runner.doubt(revision.repository)
            log.info("%s: push %s of %s: %s", revision.name, told.delivery, told.ref, state)
            done = structs.replace(told, state=state, why=why, commit=commit)
            self.counted[state] += 1
            if self._names.get(revision.name) is not None:
                self._latest[revision.name] = done
            if revision.name == asked:
                self._seen[asked, told.delivery] = done

        return tell


def _why_not(
    revision: Revision,
    scheme: Scheme,
    headers: Mapping[bytes, bytes],
    payload: _Payload,
    followers: list[Revision],
) -> str:
    """Why nothing moves; empty if something may."""
    header, kinds = _EVENTS[scheme]
    if (kind := headers.get(header, b"")) not in kinds:
        return f"{header.decode()} says {kind[:40].decode('latin-1')!r}, which is no push"
    if bare(revision.repository) not in payload.repository.names() | payload.project.names():
        return f"it is none of {revision.repository}, which {revision.name} stands for"
    if not is_reference(payload.ref):
        return f"its ref is {payload.ref[:80]!r}, which is no branch or tag of Git's"
    if not followers and not revision.follows:
        return f"{revision.name} is pinned; move it to a branch to have it follow that"
    return "" if followers else f"no name follows {payload.ref} of {revision.repository}"


def delivery_of(scheme: Scheme, headers: Mapping[bytes, bytes], body: bytes) -> str:
    """The id of a delivery: as the sender has it, or else the hash of its body."""
    for name in _DELIVERIES[scheme]:
        if told := headers.get(name, b""):
            return told[:ID_CHARACTERS].decode("latin-1")
    return hashlib.sha256(body).hexdigest()


def read_payload(body: bytes) -> _Payload:
    """What a push says, of JSON, or of a form with JSON in it. Takes time in proportion to its length.

    Raises:
        BadRequest
    """
    try:
        if body.startswith(FORM):
            body = unquote_to_bytes(body.partition(b"&")[0].removeprefix(FORM).replace(b"+", b" "))
        return _payload.decode(body)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        text = f"this is no push as GitHub, Gitea or GitLab send it: {str(error)[:200]}"
        raise BadRequest(text, field="body") from None


def bare(url: str) -> str:
    """What a repository's URLs have in common: `github.com/u/r` of `git@github.com:U/r.git`."""
    text = url.casefold()
    rest = text.partition("://")[2] if "://" in text else _SCP.sub(r"\1/", text)
    host, slash, path = rest.partition("/")
    return f"{host.rpartition('@')[2]}{slash}{path.rstrip('/').removesuffix('.git')}"


def is_reference(ref: str) -> bool:
    """Whether Git would have a branch or tag of this name, without asking it."""
    return _REFERENCE.fullmatch(ref) is not None and _NOT_IN_REFERENCE.search(ref) is None


def concerns(revision: Revision, ref: str) -> bool:
    """Whether a push of this reference may change what a name's version means; Git has the last word."""
    version = revision.definition.version
    if version is None:
        return True  # which branch is the default one, and whether the URL names one, Git knows
    if version.startswith("refs/"):
        return ref == version
    kind, _, name = ref.removeprefix("refs/").partition("/")
    return name == version or (kind == "tags" and _RELEASES.fullmatch(version) is not None)
