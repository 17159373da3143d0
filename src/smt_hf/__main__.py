"""`python -m smt_hf` is the command `smt-hf`."""

import sys

from smt_hf_command import main

if __name__ == "__main__":
    sys.exit(main())
