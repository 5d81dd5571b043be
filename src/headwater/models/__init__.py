"""Language models: loading, fingerprints, readers of rows, generation, losses, the readout."""
