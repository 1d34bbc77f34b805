"""Pruning: a plan says which weights become zero, then it is applied."""
