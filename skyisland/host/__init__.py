"""What we need of any machine: processes, pipes, folders, tasks, and the programs that it has.

Gives: processes with bounded outputs, killed at their deadline (`process`, `pipes`); the host's own programs,
and a Go toolchain, found or downloaded (`programs`, `toolchain`); folders that are whole or not there
(`folder`); work that a cancellation does not abandon, or that is done once for all who want it (`tasks`,
`flight`); places that clients share (`fair`).

Uses: errors alone. It knows no jail, no build and no setting.
"""
