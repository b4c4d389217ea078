"""Kernels of our own in C++, for training in bfloat16 on x86 processors with AMX."""
