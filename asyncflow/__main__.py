"""`python -m asyncflow`: the command `asyncflow`, where scripts are not on the path."""

from asyncflow.cli import main

if __name__ == "__main__":
    main()
