"""Train a tokenizer for the TinyStories corpus. All logic is in `tinyllm.cli.tiny_llm`."""

from tinyllm.cli.tiny_llm import train_vocab

if __name__ == "__main__":
    train_vocab()
