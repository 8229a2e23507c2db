"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Something the user can mend: one clear sentence that says what is wrong, where, and the way out.

    The command line prints it on stderr without a traceback and exits with status 1.
    """


class StoreAwayError(UserError):
    """The store could not be opened for now: whoever can wait tries again."""


class StoreDamagedError(UserError):
    """An embedded store holds files that cannot be read any more; trying again mends nothing."""


class StoreUnavailableError(Exception):
    """The store does not answer for now: the same call may succeed later. Its text is one line for the log."""


class StateLostError(Exception):
    """What is in memory is of no use any more and has to be loaded anew. Its text says why, in one line for the log."""


class OwnershipLostError(StateLostError):
    """Another worker has taken partitions over while this one stood still: what it has in memory may be out of date."""

    def __init__(self) -> None:
        super().__init__("another worker has taken partitions over while this one stood still")


class AccountingError(Exception):
    """A bug: what was read is not what was accepted and refused. Nothing wrong is stored; a restart goes on from there."""
