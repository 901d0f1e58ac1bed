"""Train and test XNOR-Net: `python main.py -help` lists the options."""

from xnornet_port.cli import program

if __name__ == "__main__":
    program()
