"""ZFS: a clone per jail, on Linux and on FreeBSD.

`clones.ZfsClones` is the driver; the base system that it clones is handed in. `destroyer` destroys clones off
everybody's path, `commands` has the command lines, `checks` is for `skyisland doctor`.
"""
