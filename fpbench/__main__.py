"""`python -m fpbench` is the command `fpbench`."""

from .cli import main

main(prog_name="fpbench")
