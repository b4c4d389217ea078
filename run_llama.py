"""Generate with a small Llama, or classify: `python run_llama.py --help`. All logic is in `tinyllm.course`."""

from tinyllm.course.run_llama import main

if __name__ == "__main__":
    main()
