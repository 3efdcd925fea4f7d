"""lm-eval's own command line."""

import sys

from lm_eval.__main__ import cli_evaluate


def main(arguments: list[str]) -> int:
    sys.argv = ["lm_eval", *arguments]
    cli_evaluate()
    return 0
