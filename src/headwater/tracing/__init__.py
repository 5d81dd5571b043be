"""Trace what a model said to the rows that taught it: queries, hits, token maps."""
