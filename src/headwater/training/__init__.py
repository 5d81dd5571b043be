"""Train tiny models, cache trained models, and record training runs."""
