"""Embedding file formats: one module per format."""
