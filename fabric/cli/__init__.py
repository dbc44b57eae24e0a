"""The command `fabric`: one noun, one verb, `-o json` on everything that reads.

Exit codes: 0 done, 1 error, 2 usage or configuration, 10 unhealthy, 11 denied,
12 not attested. Results go to standard output, everything else to standard error.
"""

from fabric.cli.app import main

__all__ = ["main"]
