"""The machine that tinyllm runs on: its memory, and the cache of compiled code."""
