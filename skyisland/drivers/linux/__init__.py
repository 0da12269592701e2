"""Linux: two drivers for jails, clones by overlay, interfaces on a bridge.

    namespaces                   jails by our own launcher (`launching`, `launcher/`); needs root
    bubblewrap                   jails by bwrap (`bwrap`), for any other user
    overlay                      clones of the `base` that cost nothing on the host
    bridge, hostnetwork          interfaces, over `rtnetlink`, with a packet filter, `nftables`; that of
                                 iptables-legacy is read, `xtables`
    ownfiles                     what a jail of bubblewrap has to itself
    cgroup, rlimits, seccomp     the limits and the filter of both kinds of jails
    checks                       what `skyisland doctor` tries on Linux

The only programs that they run are bwrap and, to compile the launcher, go.
"""
