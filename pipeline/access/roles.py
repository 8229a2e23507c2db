"""Roles, and what each allows. Nobody may do everything: who gives out access reads no persons, who reads persons is audited."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What somebody is here for."""

    VIEWER = "viewer"
    PLANNER = "planner"
    TRACER = "tracer"
    AUDITOR = "auditor"
    ADMIN = "admin"


#: May read aggregates.
AGGREGATES = frozenset(Role)
#: May read about persons, for a stated purpose, and report cases.
PERSONS = frozenset({Role.TRACER})
#: May have somebody erased, which tells how many scans there were and nothing else about them.
ERASURES = frozenset({Role.ADMIN})
#: May read who read what about persons.
AUDITS = frozenset({Role.AUDITOR})


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who proved who they are: a name for the audit log, and their roles."""

    who: str
    roles: frozenset[Role]

    def may(self, allowed: frozenset[Role]) -> bool:
        """Whether one of the roles is among those allowed."""
        return not self.roles.isdisjoint(allowed)
