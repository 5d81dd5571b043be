"""The public functions: they take names, paths, data frames or opened objects, and return results."""
