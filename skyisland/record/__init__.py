"""What an island remembers, counts and logs.

Gives: its memory in one SQLite file (`state`), which keeps artifacts, commits and addresses for the rooms
that own them; log lines and a ring of the last ones (`logs`); figures for Prometheus and StatsD (`metrics`);
calls by function and windows of time (`functions`); and counts of HTTP responses (`traffic`). History, log
lines and figures are made of events.

Uses: events, host, model. It knows no room that uses it.
"""
