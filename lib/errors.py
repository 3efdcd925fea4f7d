"""The one exception that users may see. Its message is a single clear line: what, where, what is
allowed; where several mistakes were looked for at once, one such line for each. Everything else
that is raised is a bug and keeps its traceback."""


class UserError(Exception):
    """Mistakes in the input or the surroundings that the user can mend, a line for each."""

    def __init__(self, *lines: str) -> None:
        self.lines = tuple(dict.fromkeys(lines))
        super().__init__("\nerror: ".join(self.lines))
