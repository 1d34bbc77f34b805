"""Quantization: a plan says which values become 8-bit integers and which nodes stay floats, then it is applied."""
