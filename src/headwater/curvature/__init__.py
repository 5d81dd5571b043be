"""Preconditioners fitted on a stream: Gram matrices, Kronecker factors, DataInf's closed form, Adam's moments."""
