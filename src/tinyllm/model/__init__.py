"""The Llama architecture, one idea a file."""
