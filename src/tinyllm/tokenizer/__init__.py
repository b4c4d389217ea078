"""Tokenizers: training, encoding and decoding, and their files."""
