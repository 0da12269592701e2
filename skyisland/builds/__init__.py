"""A binary for a call: compiled once, recorded, kept until nobody needs it.

Gives: `builds.Builds`, with the artifacts on record (`artifacts`, `room`) and their files (`store`), what
package a source is (`described`), what packages offer (`catalogues`), work for quiet moments (`ahead`), and
binaries of a fleet (`exchange`).

Uses: golang, jails, settings, events, host, model. It knows no repository: a checked-out commit is handed in.
"""
