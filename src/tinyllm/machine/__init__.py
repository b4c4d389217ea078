"""The machine under tinyllm: how much memory it has, and where compiled code is kept."""
