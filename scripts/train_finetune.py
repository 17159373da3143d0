"""Entry point for `torchrun` and `accelerate launch`: the same as `smt-hf finetune`."""

import sys

from smt_hf.cli.main import run

if __name__ == "__main__":
    sys.exit(run("finetune", sys.argv[1:]))
