"""Reads and writes other tools' formats, converted from and to Hugging Face's names and half-split layout."""
