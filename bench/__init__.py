"""Side-by-side measurements: the island against what else runs a binary, in one run on one machine."""
