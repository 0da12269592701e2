"""What the console knows of the other islands of a fleet: their jails and addresses, as of the last poll.

Events come from the console's own island alone, so these rows are as old as the poll. Each has the name of
its node, and so has its key: two islands may have the same addresses, where nobody reaches both.
"""

from __future__ import annotations

from tui.watch.port import Others
from tui.watch.rows import AddressRow, JailRow
from tui.words import line


class OtherNodes:
    """The other islands' rows."""

    def __init__(self) -> None:
        self.jails: dict[str, JailRow] = {}
        """By their names, of which there are no two."""
        self.addresses: dict[str, AddressRow] = {}
        """By node and address."""
        self.silent: list[str] = []

    def take(self, others: Others) -> None:
        """Take what they said; of who is silent nothing is left."""
        before_jails, before_addresses = self.jails, self.addresses
        self.jails, self.addresses, self.silent = {}, {}, others.silent
        for node, island in others.islands.items():
            for jail_info in island.jails:
                row = self.jails[jail_info.name] = JailRow(jail_info, line(node))
                before = before_jails.get(row.info.name)
                row.killing = before is not None and before.killing
            for info in island.addresses:
                address = AddressRow(info, line(node))
                holder = self.jails.get(info.jail or "")
                address.function = holder.label if holder else ""
                known = before_addresses.get(address.key)
                address.setting = known.setting if known is not None else None
                self.addresses[address.key] = address
