"""Reads files into documents; holds the train/validation split, downloads, and the embedded storybook."""
