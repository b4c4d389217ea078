"""Documents as token ids on disk: the file format, the parallel writer, and the order of batches."""
