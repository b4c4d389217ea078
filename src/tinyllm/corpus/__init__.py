"""Files in, documents out: readers, the train/validation split, downloads, and the embedded storybook."""
