"""What a host is told to do, so that there is a jail: the drivers.

    linux      jails of namespaces or by bubblewrap, cgroups, seccomp, overlays, a bridge
    freebsd    jails by jail(8), its base system, addresses by ifconfig(8)
    zfs        clones, on either system
    fake       jails and clones that are none, for tests and pictures

A driver keeps a protocol of `jails/driver.py`, and tests/contract holds all of them to it. It is naive: no
locks, no events, no policy. Only `wiring` imports drivers, those of the system that it runs on.

Uses: the protocols of jails, doctor's `Check`, settings, host, model. No driver uses one of another system
or a rival of its own: what two of them share belongs to jails/driver.py or host.
"""
