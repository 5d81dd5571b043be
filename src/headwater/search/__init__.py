"""Search: exact inner products of an index with query vectors, streamed in bounded memory."""
