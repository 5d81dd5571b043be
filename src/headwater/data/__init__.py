"""Corpora in any common shape, made into token batches; the one place where targets shift."""
