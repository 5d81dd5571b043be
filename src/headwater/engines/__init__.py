"""Where work in blocks runs. No torch at import."""
