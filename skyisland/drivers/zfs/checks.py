"""What `skyisland doctor` checks for ZFS: that the dataset of the settings exists."""

from __future__ import annotations

from skyisland.doctor import Check, vital
from skyisland.drivers.zfs.clones import ZfsClones


class ZfsChecks:
    """The `Examiner` of ZFS."""

    def __init__(self, clones: ZfsClones) -> None:
        self._clones = clones

    async def examine(self) -> list[Check]:
        """See `Examiner`; makes nothing."""
        return [await vital("zfs", self._clones.check_dataset)]
