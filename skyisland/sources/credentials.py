"""What the island shows to the servers of private repositories, and whose calls may have it shown.

`[git.credentials]` has a token or a key for prefixes of URLs. It goes to the remote that the operator's
settings make of a repository's name, and after a redirect only where the same prefix covers the new URL: a
stranger's server that redirects to a private repository reads nothing, for its own name has no credential.

A token never enters the island's memory on its way to Git, nor an argument, nor the environment: Git asks a
helper for it, which reads the file. Git with a credential runs as the island's own user, without
capabilities: the user of what strangers wrote may not look at its memory.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from skyisland.errors import SettingsError, SourceRefused
from skyisland.host.fair import LOCAL
from skyisland.settings import Credential
from skyisland.settings.files import CREDENTIALS, others_read
from skyisland.sources.url import covers, remote_of

TOKEN_BYTES = 4096
"""How much of a token's file is read."""

_HELPER = (
    '!f() {{ test "$1" != get || printf \'username=%s\\npassword=%s\\n\' {user} "$(head -n 1 {file})"; }}; f'
)
"""gitcredentials(7). `printf` is the shell's own: no other process is given the token."""

REASONS = (
    (
        "host key",
        r"Host key verification failed|host key is known|HOST IDENTIFICATION HAS CHANGED",
        "the server's host key is not among those known, or is another one; compare its fingerprint, then "
        "put what ssh-keyscan prints into known_hosts",
    ),
    (
        "key file",
        r"Load key .{,300}?(denied|format|libcrypto|passphrase|No such)|UNPROTECTED PRIVATE KEY",
        "the key cannot be read; it must have no passphrase, belong to the island's user and have mode 600",
    ),
    (
        "publickey",
        r"Permission denied \(",
        "the server does not know the key, or it may not read this repository",
    ),
    (
        "certificate",
        r"SSL certificate|certificate (subject|verif)|CAfile",
        "the server's certificate is none that this host trusts; name its authority in ca",
    ),
    (
        "401",
        r"could not read (Username|Password)|Authentication failed|returned error: 401",
        "the server takes no such token: it is wrong or has expired",
    ),
    ("403", r"returned error: 403", "the token may not read this repository"),
    (
        "404",
        r"returned error: 404|not found|not appear to be a git repository",
        "the server has no such repository, or the credential may not see it",
    ),
)
"""Why a server gave nothing: a word, Git's text or ssh's, and what to do."""


class Shown(Struct, frozen=True):
    """A credential with its prefix and its files, as they lie on this host."""

    prefix: str
    credential: Credential
    folder: str

    def covers(self, url: str) -> bool:
        """Whether a remote's URL begins with the prefix."""
        return covers(self.prefix, url)

    def permits(self, client: str) -> bool:
        """Whether this client's calls may use it. `client`: the name of a token, or else an address."""
        if client == LOCAL:
            return True
        if self.credential.callers:
            return client in self.credential.callers
        return not _is_nobody(client)

    def config(self) -> list[tuple[str, str]]:
        """What Git is told, for https. Its helper answers this server alone."""
        if not self.credential.token:
            return []
        server = "/".join(self.prefix.split("/")[:3])
        helper = _HELPER.format(
            user=shlex.quote(self.credential.user), file=shlex.quote(self._path(self.credential.token))
        )
        authority = [("http.sslCAInfo", self._path(self.credential.ca))] if self.credential.ca else []
        return [(f"credential.{server}.helper", helper), *authority]

    def environment(self) -> dict[str, str]:
        """What Git is told, for ssh: this key and no other, these host keys and no new one."""
        if not self.credential.key:
            return {}
        known = self._path(self.credential.known_hosts or "/etc/ssh/ssh_known_hosts")
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "10",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": known,
            "GlobalKnownHostsFile": "/dev/null",
            "UpdateHostKeys": "no",
            "IdentityFile": self._path(self.credential.key),
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "PreferredAuthentications": "publickey",
        }
        words = ["ssh", "-F", "/dev/null", *(f"-o{name}={value}" for name, value in options.items())]
        return {"GIT_SSH_COMMAND": shlex.join(words)}

    def blotted(self, text: str) -> str:
        """A text without the token. Blocks."""
        token = ""
        if self.credential.token:
            with contextlib.suppress(OSError), open(self._path(self.credential.token), "rb") as file:
                token = file.read(TOKEN_BYTES).decode(errors="replace").partition("\n")[0].strip()
        return text.replace(token, "…") if token else text

    def fault(self) -> str:
        """What is wrong with a file of it; empty if nothing is. Blocks."""
        for key in ("token", "key", "ca", "known_hosts"):
            if not (named := getattr(self.credential, key)):
                continue
            path = Path(self._path(named))
            try:
                with path.open("rb") as file:
                    begun = file.read(TOKEN_BYTES).partition(b"\n")[0].strip()
            except OSError as error:
                return f"{key}: {path} cannot be read: {error.strerror}"
            if key in ("token", "key") and (readers := others_read(path)):
                return f"{key}: {path} {readers}; chmod 600 it, and make a new one"
            if key == "token" and not re.fullmatch(rb"[!-~]+", begun):
                return f"token: {path} holds none: a line of printable ASCII without spaces"
        return ""

    def _path(self, named: str) -> str:
        return named.replace(CREDENTIALS, self.folder or "/nonexistent", 1)


class Credentials:
    """All of them, the longest prefix first."""

    def __init__(
        self, settings: Mapping[str, Credential], rewrites: tuple[tuple[str, str], ...], folder: str = ""
    ) -> None:
        """`rewrites`: those of `[git]`. `folder`: systemd's, with the credentials of this service."""
        self._rewrites = rewrites
        self._all = [
            Shown(prefix, credential, folder)
            for prefix, credential in sorted(settings.items(), key=lambda pair: -len(pair[0]))
        ]

    def of(self, name: str) -> Shown | None:
        """What is shown to the server of a repository, by its name."""
        if not self._all:
            return None
        remote = remote_of(name, self._rewrites)
        return next((shown for shown in self._all if shown.covers(remote.url)), None)

    def check(self) -> None:
        """Look at all files once, so that a mistake shows at start. Blocks.

        Raises:
            SettingsError: one of them cannot be read, or can be by others.
        """
        for shown in self._all:
            if fault := shown.fault():
                raise SettingsError(f'git.credentials."{shown.prefix}".{fault}')

    def admit(self, name: str, client: str) -> None:
        """Let a client's call at a repository, or below a prefix, if it may have the credential used.

        Raises:
            SourceRefused: it may not. Whether there is such a repository, nobody was asked.
        """
        shown = self.of(name)
        if shown is not None and not shown.permits(client):
            raise SourceRefused(
                f"url: {name} may be private: it is served to callers with a token"
                + (", and not to everyone's" if shown.credential.callers else "; send yours"),
                field="url",
            )


def why(stderr: str) -> str:
    """Why a server gave nothing, with what to do; empty if its words say nothing that we know."""
    return next((f"{word}: {remedy}" for word, text, remedy in REASONS if re.search(text, stderr)), "")


def _is_nobody(client: str) -> bool:
    """Whether a client has no name: it is an address or a network of them, as `api.clients` writes it, or
    nothing that a token could be called."""
    try:
        ipaddress.ip_network(client)
    except ValueError:
        return not client or client.startswith("unix")
    return True
