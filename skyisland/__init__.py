"""Sky Island: any Go function of any Git repository, answered from a fresh jail.

    cli          the commands                          golang       all that knows Go
    wiring       makes an island of its rooms          record       what is remembered and counted
    island       its life, what operators do           jails        jails, clones and addresses
    client       a running island, by its API          host         what we need of any machine
    drivers      what a host is told to do             settings     one file, checked
    fakes        rooms without anything behind them    operations   what the API offers, in a table
    doctor       what this host can do                 wire         what travels to and from an island
    sources      a repository at a commit              events       facts, in the past tense
    builds       a binary for a call, once             model        the values that go from room to room
    named        functions with a name                 watching     following an island, page by page
    story        a call while it runs                  status       what operators see
    rooms        what the island asks of its rooms     errors       what can go wrong
    later        calls that answer later               cause        why a call did not end well
    codec        JSON, written and read                figures      what was called, and how it went
    calling      one call, through the rooms           supply       from a request to a binary
    trace        the trace that a call is a part of    fleet        several islands that are one
    nodes        what is asked of the others           receipts     what was answered, signed
    choosing     which drivers an island has

A room uses the rooms below it and no others; `[tool.importlinter]` in pyproject.toml has the order. The HTTP
API (`api`) and the console (`tui`) stand beside this package: it knows neither, but for the commands.
"""

__version__: str


def __getattr__(name: str) -> str:
    """The version is looked up when it is asked for: reading the metadata of packages takes some 25 ms."""
    if name == "__version__":
        from importlib.metadata import version

        return version("skyisland")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
