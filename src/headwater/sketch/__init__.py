"""Seeded linear maps from the gradient of a model to a vector short enough to store."""
