"""Plain values every other room speaks in: errors, seeds, specs, fingerprints, scores, traces (numpy only)."""
