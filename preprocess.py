"""Turn the corpus into shards of token ids: `python preprocess.py --help`. All logic is in `tinyllm.cli.tiny_llm`."""

if __name__ == "__main__":
    from tinyllm.cli.tiny_llm import preprocess  # not for helper processes, which import this file, too

    preprocess()
