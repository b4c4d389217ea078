"""Train a tokenizer for the TinyStories corpus: `python train_vocab.py --help`. All logic is in `tinyllm.course`."""

from tinyllm.course import download, train_vocab

__all__ = ["download", "train_vocab"]

if __name__ == "__main__":
    from tinyllm.course.tiny_llm import train_vocab as main

    main()
