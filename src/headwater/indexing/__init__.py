"""Build an index, add to it, quantise it, look after it, and plan what it will take."""
