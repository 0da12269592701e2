"""Sources: a repository's URL and a version enter, the files of a commit leave.

Gives: `sources.Sources`. Behind it `url` decides what Git may talk to, `git` runs one Git command that can do
no harm, `mirror` keeps what was fetched, and `space` how much room that takes.

Uses: settings, events, host, model. It knows nothing of Go, builds or jails.
"""
