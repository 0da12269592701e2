"""What tests share, by what it stands for; nothing in here is a test.

- `islands`: real islands of a run, prepared once (fixtures); `daemon`: a real `skyisland serve`.
- `api`, `operating`: islands of fake rooms, for those who call and for those who watch.
- `upstream`, `buildroom`, `netspaces`: real servers of Git, builds in real jails, networks to break out into.
- `workshop`, `fakekernel`, `fake_island`, `standins`: who plays Go, cgroups, an island, FreeBSD's tools.
- `hostility`, `seccomp_attempts`: what attacks are made with.
- `pictures`, `subject`, `browser`: consoles to draw, to torment, and to look at as users do.
- `screenshots`: the pictures that pages show, of a real island.
- `records`, `zpool`, `freebsd_commands`: values that several tests speak of.

It imports nothing, for the programs of `standins` start often.
"""
