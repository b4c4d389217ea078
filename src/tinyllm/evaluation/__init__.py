"""Measures models and the texts that they write."""
