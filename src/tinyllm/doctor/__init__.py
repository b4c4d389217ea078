"""Checks of outputs and of this machine: what is whole, what repairs it, and whether a run will fit."""
