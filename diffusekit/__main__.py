"""`python -m diffusekit` is the `diffusekit` command."""

from .cli.boundary import main

if __name__ == "__main__":
    main()
