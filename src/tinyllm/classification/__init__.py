"""Classification of sentences with a language model: zero-shot by its probabilities, or fine-tuned with a head."""
