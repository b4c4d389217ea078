"""Documents as token ids on disk: the format, the parallel writer, and the order of batches."""
