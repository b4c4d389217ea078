"""Text to ids and back: training, the codec, and the files a tokenizer lives in."""
