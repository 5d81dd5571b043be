"""Reading corpora in any common shape and making token batches of them, with targets shifted by one position."""
