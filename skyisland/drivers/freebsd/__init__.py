"""FreeBSD: jails by jail(8) on clones by ZFS, with an alias of the host's or a network stack of their own.

    jails, network     the drivers
    commands           the command lines of jail(8), jexec(8), rctl(8) and others, as pure functions
    base               the base system, from a release
    clonefs            puts files into a clone from outside
    checks             what `skyisland doctor` tries on FreeBSD: every assumption of these drivers

Written from sources and manuals. Tests run them on stand-ins for FreeBSD's programs (tests/support/standins).
"""
