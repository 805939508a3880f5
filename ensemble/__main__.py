"""`python -m ensemble`: the command line, where the script `ensemble` is not on the path."""

from ensemble.cli import main

if __name__ == "__main__":
    main()
