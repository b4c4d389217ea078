"""Count the words and tokens of a text: `python count_words_tokens.py --help`. The logic is in `tinyllm.course`."""

from tinyllm.course.count_words_tokens import main

if __name__ == "__main__":
    main()
