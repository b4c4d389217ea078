"""The CPU engine's compiled program: a whole pass of a model in one call, and the choice of the next token."""
