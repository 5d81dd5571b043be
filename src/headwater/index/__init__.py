"""The index: a Lance dataset that says what it is, grows, shrinks, survives kill -9 and can be verified (no torch)."""
