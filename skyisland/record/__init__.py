"""What is remembered, counted and logged; all of it follows from events.

Gives: the island's memory in SQLite (`state`), log lines and the ring of the last ones (`logs`), figures for
Prometheus and StatsD (`metrics`), and the counts of HTTP responses (`traffic`).

Uses: events, host, model. It asks no room: what it knows, it was told.
"""
