"""`python -m xnornet_port` is `python main.py`."""

from xnornet_port.cli import program

program()
