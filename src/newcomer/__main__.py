"""`python -m newcomer`: the command line as a module, as `torchrun` starts it."""

from newcomer.cli import main

if __name__ == "__main__":
    main()
