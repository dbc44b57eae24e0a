"""`python -m fabric.cli` is the command `fabric`."""

from fabric.cli.app import main

main()
