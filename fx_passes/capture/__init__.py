"""Captures a model of any kind as one graph."""
