"""Extractors: what is read off a model for each example. They know nothing of who consumes it."""
