"""A tiny trainer, a cache of trained models, and the recorder of training runs."""
