"""The index: a Lance dataset with a manifest. It grows, shrinks, survives kill -9 and can be verified (no torch)."""
