"""From a model and a prompt to text: sampling, engines, and the one front before them."""
