"""ZFS: a clone for each jail, on Linux and on FreeBSD.

    clones        the driver; the content of the base comes from the driver of the system
    destroyer     destroys clones in batches, while calls go on
    commands      the command lines of zfs(8)
    checks        what `skyisland doctor` checks for ZFS

The only programs that they run are zfs(8) and umount(8).
"""
