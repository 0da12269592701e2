"""What an island remembers, counts and logs.

Gives: its memory in one SQLite file (`state`), which keeps artifacts, commits and addresses for the rooms
that own them; log lines (`lines`), a ring of the last ones (`logs`), and JSON lines (`jsonlines`); figures
for Prometheus and StatsD (`metrics`), those of `schedules` and pushes apart; calls by function and window of
time (`functions`, made of `tallies`); the builds that failed last (`failed`); counts of HTTP responses
(`traffic`); and calls as spans (`traces`).
History, log lines, figures and spans are made of events.

Uses: events, host, model. It knows no room that uses it.
"""
