"""Turn the corpus into shards of token ids: `python preprocess.py --help`. All logic is in `tinyllm.cli.tiny_llm`."""

from tinyllm.cli.tiny_llm import preprocess

if __name__ == "__main__":
    preprocess()
