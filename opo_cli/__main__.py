"""`python -m opo_cli`."""

import sys

from opo_cli.cli import main

if __name__ == "__main__":
    sys.exit(main())
