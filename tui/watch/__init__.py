"""The island as an operator watches it, without a screen.

`station` follows one island through a `port`, which is `inprocess` or `remote`. It keeps what is known on a
`board`, in `rows`, `names`, `calls` and `figures`, and log lines in a `journal`. `connection` says whether
that is current, `filter` which rows an operator wants, and `search` finds what is called so. Of the fleet's
other islands `nodes` has jails and addresses.

Uses: the wire, operations, events, model, and `words`. It knows neither Textual nor how anything is drawn.
"""
