"""Continue a prompt with the trained model: `python sample.py --help`. All logic is in `tinyllm.cli.tiny_llm`."""

from tinyllm.cli.tiny_llm import sample

if __name__ == "__main__":
    sample()
