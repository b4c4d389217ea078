"""Prepares a corpus by a datatrove pipeline, on this machine, on Slurm or on Ray; `tinyllm[cluster]` installs it."""
