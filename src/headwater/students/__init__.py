"""Students: small models that learn from a sample of scores to score any text, without the model that gave them."""
