"""A process that tests for xdist: a copy of one that has everything imported."""

from lib.book import warm


def main(arguments: list[str]) -> int:
    """Goes on as the interpreter would that execnet asks for, by `-u -c code`."""
    warm.copied = False  # what is tested here is as in any process
    exec(arguments[-1], {"__name__": "__main__"})
    return 0
