"""FreeBSD: jails by jail(8) on clones by ZFS, addresses as aliases or with a network stack of their own.

    jails, network     the drivers; their command lines are pure functions (`commands`, and above `network`)
    base, clonefs      the base system from a release, and files placed into a clone
    checks             what `skyisland doctor` tries here, every assumption that was never seen to hold

Written from sources and manuals, and tested on programs that stand in for FreeBSD's (tests/support/standins).
"""
