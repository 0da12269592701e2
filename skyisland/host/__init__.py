"""What we need of any machine: processes, pipes, folders, tasks, and the programs that it has.

Gives: processes with bounded outputs, killed at their deadline (`process`, `pipes`); the host's own
programs, and a Go toolchain, found or downloaded (`programs`, `toolchain`); a program of ours that it
compiles (`ownprogram`); folders that are whole or not there (`folder`); a stranger's folder, read without
leaving it (`tree`); which addresses are public (`internet`), and the guard of whatever is fetched there
(`outbound`); whose certificate a client trusts (`trust`); what a service manager gives and is told
(`service`); work that a cancellation does not abandon, or that is done once for all who want it (`tasks`,
`flight`); places that clients share (`fair`), and what they name, not kept for ever (`recent`); failures
that are not tried again at once (`failures`); host uids, lent to one jail at a time (`uids`); how busy the
host is (`load`).

Uses: errors, and the shape in which `load` tells (`status`). It knows no jail, no build and no setting.
"""
