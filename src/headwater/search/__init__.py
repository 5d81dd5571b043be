"""Search an index: inner products of its rows with query vectors, exact or approximate, in bounded memory."""
