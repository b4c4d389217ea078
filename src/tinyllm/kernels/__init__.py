"""Compiled code: `decode` (Numba) for generation on a CPU, `train` (C++) for training in bfloat16. See README.md."""
