"""From a language model to a classifier of sentences: zero-shot by its own probabilities, or fine-tuned with a head."""
