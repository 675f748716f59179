"""A model of any kind -> one graph."""
