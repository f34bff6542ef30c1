"""The one exception that means "the user can mend this"."""


class InputError(ValueError):
    """A bad input: what is wrong, where, and what to do, in one line.

    The command line prints it without a traceback and exits with status 2. Everything else that is raised is a fault
    of the program and keeps its traceback.
    """
