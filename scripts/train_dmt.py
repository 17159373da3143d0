"""Entry point for `torchrun` and `accelerate launch`: the same as `smt-hf dmt`."""

import sys

from smt_hf.cli.main import run

if __name__ == "__main__":
    sys.exit(run("dmt", sys.argv[1:]))
