"""`python -m diffusekit` is the `diffusekit` command."""

from .cli.main import main

if __name__ == "__main__":
    main()
