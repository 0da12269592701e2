"""Drivers: what makes jails, clones and network interfaces on one system.

    linux      jails by namespaces or by bubblewrap; cgroups, seccomp, overlays, a bridge
    freebsd    jails by jail(8), its base system, addresses by ifconfig(8)
    zfs        clones on either system
    fake       jails and clones that confine nothing, for tests and pictures

A driver implements a protocol of `jails/driver.py`; tests/contract runs the same tests on all of them. It has
no locks, no events and no policy: its callers have. Only `wiring` imports drivers, those of its own system.

Uses: the protocols of jails, doctor's `Check`, settings, host, model. No driver uses one of another system
or an alternative to itself: what two of them share belongs to jails/driver.py or host.
"""
