"""Stand-ins for FreeBSD's programs, stricter than the real ones.

    programs ──▶ one state folder ◀── the test, which looks and plants faults

Each program accepts the parameters and flags that FreeBSD's manual pages name and that we use, and
refuses every other, in the real one's words and with its exit code. A jail's processes run in
namespaces of this host; datasets are folders, clones are copies. `World` makes the folder with its
`bin`, and knows what is left.
"""
