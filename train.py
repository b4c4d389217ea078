"""Train the Tiny-LLM model: `python train.py --help`. All logic is in `tinyllm.course`."""

from tinyllm.course.tiny_llm import train

if __name__ == "__main__":
    train()
