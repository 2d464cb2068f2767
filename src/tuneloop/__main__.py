"""`python -m tuneloop`: the command, where its script is not on the path."""

from tuneloop.cli.main import main

if __name__ == "__main__":  # processes that it starts import this file, too
    main()
