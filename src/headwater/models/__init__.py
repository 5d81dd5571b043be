"""Models: loading, the readout, capture hooks, losses."""
