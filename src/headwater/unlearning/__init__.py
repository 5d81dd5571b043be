"""Making a model forget: influence views → weights → a weighted objective → one trainer → a new model."""
