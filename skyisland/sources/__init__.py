"""Sources: a repository's URL and a version enter, the files of a commit leave.

Gives: `sources.Sources`. Behind it `written` reads what people write, and `url` decides what Git may talk to.
`naming` finds where a repository ends, by its host's word if need be (`vanity`), and `places` knows where a
package lies in it. `versions` knows what a version means, `releases` which there are, and `commits` which
commit one is. `git` runs one Git command that can do no harm, and `remotes` those that need a server, to
which it shows what `credentials` has for it. `mirror` keeps what was fetched, in
folders that `bare` opens with care, and `space` knows how much room that takes.

Uses: settings, events, host, model. It knows nothing of builds or jails, and of Go how packages are named.
"""
