"""The storybook: an embedded corpus of children's stories, written from a seeded grammar and recognised by it.

`grammar` parses the plots in `plots/*.txt`, `words` holds the words, `stories` writes and recognises stories.
"""

from tinyllm.corpus.storybook.stories import MAX_STORIES, is_story, write_stories

__all__ = ["MAX_STORIES", "is_story", "write_stories"]
