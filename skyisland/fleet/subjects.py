"""The names that a fleet uses on its servers, in one place: permissions are written from them.

Several fleets may share an account, so each name has the fleet's in it.
"""

from __future__ import annotations

from msgspec import Struct


class Subjects(Struct, frozen=True):
    """Of one island in one fleet."""

    fleet: str
    node: str

    def of(self, *words: str) -> str:
        """`sky.FLEET.…`"""
        return ".".join(("sky", self.fleet, *words))

    @property
    def pulse(self) -> str:
        """Where this island says that it is alive, and how much room it has."""
        return self.of("pulse", self.node)

    @property
    def pulses(self) -> str:
        """Where all do."""
        return self.of("pulse", "*")

    @property
    def hello(self) -> str:
        """Who says something here wants everybody's pulse at once."""
        return self.of("hello")

    def at(self, node: str, what: str) -> str:
        """What one island alone hears: `call`, `admin` …"""
        return self.of("node", node, what)

    @property
    def hung_up(self) -> str:
        """Calls whose callers left."""
        return self.of("hungup")

    def built(self, key: str) -> str:
        """A binary is in the store."""
        return self.of("built", key)

    @property
    def commit(self) -> str:
        """What a remote said of a version."""
        return self.of("commit")

    def kept(self, *words: str) -> str:
        """What the servers keep: orders, records, keys, names."""
        return self.of("kept", *words)

    def told(self, bucket: str, call: str) -> str:
        """An island has noted something of a call; calls are told of in 256 buckets."""
        return self.of("told", bucket, call)

    @property
    def renamed(self) -> str:
        """A name was changed."""
        return self.of("renamed")

    @property
    def inbox(self) -> str:
        """What every subject for answers to this island begins with."""
        return f"_INBOX.{self.node}"

    def bucket(self, kind: str) -> str:
        """A bucket or stream of the fleet: `SKY_BIN_FLEET`."""
        return f"SKY_{kind}_{self.fleet}"
