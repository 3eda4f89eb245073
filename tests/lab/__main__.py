"""`python -m lab [--net] COMMAND [ARGUMENT…]`: run a command in the laboratory's sandbox."""

import sys

from lab.sandbox import main

if __name__ == "__main__":
    sys.exit(main())
