"""Make a model forget: influence gives each row a weight, and one trainer minimises the weighted objective."""
