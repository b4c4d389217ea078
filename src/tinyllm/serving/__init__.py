"""Texts for many people at once: requests, the scheduler that batches them, and the HTTP server before it."""
