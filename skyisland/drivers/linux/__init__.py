"""Linux: two drivers for jails, clones by overlay, interfaces on a bridge.

namespaces     jails by our own launcher (`launching`, `launcher/`), for an island that is root
bubblewrap     jails by bwrap, for everybody else
overlay        clones of the `base` that cost nothing
bridge         interfaces, over `rtnetlink`, and a packet filter on them, `nftables`
cgroup, rlimits, seccomp     what both kinds of jails are limited by
checks         what `skyisland doctor` tries here
"""
