"""Train the Tiny-LLM model: `python train.py --help`. All logic is in `tinyllm.cli.tiny_llm`."""

from tinyllm.cli.tiny_llm import train

if __name__ == "__main__":
    train()
