"""FreeBSD: jails by a launcher of our own on clones by ZFS, with an alias of the host's or a network stack of
their own.

    jails, network     the drivers
    launching          what is said to the launcher, whose source is in `launcher`
    commands           orders for it, and the command lines of rctl(8), devfs(8) and others, as pure functions
    base               the base system, from a release
    clonefs            puts files into a clone from outside
    checks             what `skyisland doctor` tries on FreeBSD: every assumption of these drivers

Written from sources and manuals. Tests run them on stand-ins for FreeBSD's programs (tests/support/standins).
"""
