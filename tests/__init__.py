"""The tests. A package, so that what they share has a name to import it by: `tests.support`."""
