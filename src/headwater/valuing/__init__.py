"""What candidate rows are worth for a target, before anything is trained on them."""
