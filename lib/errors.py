"""The one exception that users may see. Its message is a single clear line: what, where, what is
allowed. Everything else that is raised is a bug and keeps its traceback."""


class UserError(Exception):
    """A mistake in the input or the surroundings that the user can mend."""
