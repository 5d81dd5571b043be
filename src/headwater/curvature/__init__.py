"""Preconditioners fitted on a stream of rows: Gram matrices, EK-FAC, DataInf; and the moments of Adam."""
