"""`python -m srdd` and the `srdd` command."""

import sys

from srdd.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
