"""Changes of access by the command line, in the audit log before they are made: tokens, devices, keys, releases."""

from collections.abc import Callable
from typing import Final

from pipeline.audit import AuditLog, operator
from pipeline.settings import Settings

#: Why they are made: the action says it, and no command asks for more.
_PURPOSE: Final = "access"


def change_note(settings: Settings, action: str, what: str) -> Callable[[], None]:
    """What notes a change, to be called once it is known to be allowed and before it is made. `what` must hold no secret.

    The call raises UserError if that cannot be noted: then nothing may be changed.
    """

    def note() -> None:
        AuditLog(settings.audit_path).append(operator(), action, purpose=_PURPOSE, persons=0, what=what)

    return note
