"""Plain values that every other room uses: errors, seeds, specs, fingerprints, scores, traces (numpy only)."""
