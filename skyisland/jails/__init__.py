"""Jails from their making to their end, and what a driver does for that.

Gives: the register of all jails (`register.Jails`), one living jail (`inmate`), jails made ahead of their
calls (`pool`), the addresses that they lease (`addresses`), what they write (`outputs`), and on one page
every protocol that a driver keeps (`driver`). Locks, deadlines, leases and events are here, so that drivers
need none.

Uses: settings, events, host, model. It knows protocols of drivers, and no driver.
"""
