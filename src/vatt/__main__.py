"""`python -m vatt …`, and so `torchrun --nproc-per-node 8 -m vatt pretrain …`."""

import sys

from vatt.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
