"""The public verbs: names, paths, frames or opened values in; results out."""
