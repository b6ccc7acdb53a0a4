"""The `tna` command, from a checkout."""

import sys

from tna_jax.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
