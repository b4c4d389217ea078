"""The engines: each computes logits behind the protocol of `protocol`, with or without torch."""
