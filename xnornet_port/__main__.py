"""`python -m xnornet_port` is `python main.py`."""

import sys

from xnornet_port.cli import main

sys.exit(main())
