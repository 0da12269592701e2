"""Measures the island beside other ways to run a binary, in one run on one machine."""
