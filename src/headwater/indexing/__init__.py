"""Build an index, add rows to it, delete rows, check it, quantise it, and plan what a build will take."""
