"""Generate with a small Llama, or classify: `python run_llama.py --help`. All logic is in `tinyllm.cli.run_llama`."""

from tinyllm.cli.run_llama import main

if __name__ == "__main__":
    main()
