"""Limits on memory, processes and processors: cgroups of version 1, 2 or both.

`groups.Cgroups` is for jail drivers: it makes a group per jail, and says what is enforced. `group.Group` is
one such group; `hierarchy` finds where groups may be made.
"""
