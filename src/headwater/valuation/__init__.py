"""What data is worth: values with intervals, near-duplicate clusters, selections, prices, ledgers (no torch)."""
