"""Count the words and tokens of a text: `python count_words_tokens.py --help`. The logic is in `tinyllm.cli`."""

from tinyllm.cli.count_words_tokens import main

if __name__ == "__main__":
    main()
