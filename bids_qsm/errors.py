"""The errors that a user reads: one sentence with what was found, where, and what to do.

Anything else that is raised is a fault of the program.
"""


class BidsQsmError(Exception):
    """A problem that the user can act on; its text is shown without a traceback."""

    exit_status = 1


def printable(text: str) -> str:
    """Return a text on one line, without what a terminal or a log would obey.

    Names of files may hold line ends, escape sequences and bytes that are no text.
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


class CommandLineError(BidsQsmError):
    """The words or the settings file cannot be understood."""

    exit_status = 2


class NotBidsError(BidsQsmError):
    """The input folder is not a BIDS dataset."""

    exit_status = 16


class NothingToDoError(BidsQsmError):
    """Nothing in the dataset matches the filters."""

    exit_status = 18


class UnreadableInputError(BidsQsmError):
    """An input file is missing, damaged, or breaks a rule that processing relies on."""

    exit_status = 66


class UnwritableOutputError(BidsQsmError):
    """An output or work folder cannot be written."""

    exit_status = 73
