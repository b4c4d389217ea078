"""C++ kernels for training in bfloat16 on x86 processors with AMX."""
