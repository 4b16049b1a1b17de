"""`python -m gradweave`: the same as the command `gradweave`."""

import sys

from gradweave.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
