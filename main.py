"""Train and test XNOR-Net: `python main.py -help` lists the options."""

import sys

from xnornet_port.cli import main

if __name__ == "__main__":
    sys.exit(main())
