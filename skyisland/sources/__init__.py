"""Sources: a repository's URL and a version enter, the files of a commit leave.

Gives: `sources.Sources`. Behind it `url` decides what Git may talk to, `git` runs one Git command that can do
no harm, and `mirror` keeps what was fetched.

Uses: settings, events, host, model. It knows nothing of Go, builds or jails.
"""
