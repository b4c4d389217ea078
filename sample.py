"""Continue a prompt with the trained model: `python sample.py --help`. All logic is in `tinyllm.course`."""

from tinyllm.course import TextGenerator

__all__ = ["TextGenerator"]

if __name__ == "__main__":
    from tinyllm.course.tiny_llm import sample

    sample()
