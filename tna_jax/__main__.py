"""`python -m tna_jax`: the `tna` command."""

import sys

from tna_jax.programs.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
