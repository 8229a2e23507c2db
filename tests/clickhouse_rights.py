"""What the SQL under infra/ gives a ClickHouse server's users, put before the embedded engine, which then enforces it.

The embedded engine has one user, `default`, and takes no `CREATE USER`; but its configuration may say what that user is, in a
server's own format (users.xml). So the statements are translated, one for one, and `default` is made whom they are about. What is
not understood is an error: nothing is left out in silence. Quotas are read, and not enforced: this engine counts none. Nor
does it know CHANGEABLE_IN_READONLY: READONLY stands for it, which allows less.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import clickhouse_connect

_INFRA = Path(__file__).resolve().parents[1] / "infra"
SERVER = ("clickhouse/users.sql",)
GRAFANA = ("grafana/clickhouse-user.sql", "grafana/clickhouse-tracing-user.sql")
#: In the order in which an operator runs them.
FILES = SERVER + GRAFANA

_CREATE = r"CREATE {} IF NOT EXISTS (\w+)"
_REPLACE = r"CREATE {} OR REPLACE (\w+)"
_NEW_PROFILE = re.compile(_CREATE.format("SETTINGS PROFILE"))
_PROFILE = re.compile(r"ALTER SETTINGS PROFILE (\w+) SETTINGS (.+)")
_ROLE = re.compile(_CREATE.format("ROLE") + r"(?: SETTINGS PROFILE '(\w+)')?")
_GRANT_ROLE = re.compile(r"GRANT (\w+) TO (\w+)")
_GRANT = re.compile(r"(GRANT .+ ON \S+) TO (\w+)")
_POLICY = re.compile(_REPLACE.format("ROW POLICY") + r" ON (\w+)\.(\w+) USING (.+) TO (\w+)")
_USER = re.compile(_CREATE.format("USER") + r" IDENTIFIED WITH sha256_password BY 'CHANGE-ME' DEFAULT ROLE (\w+)")
_DEFAULT_ROLE = re.compile(r"ALTER USER (\w+) DEFAULT ROLE (\w+)(?: SETTINGS (.+))?")
_REVOKE = re.compile(r"REVOKE ALL ON checkins\.\* FROM (\w+)")
_QUOTA = re.compile(_REPLACE.format("QUOTA") + r" KEYED BY user_name FOR INTERVAL .+")
_SETTING = re.compile(r"(\w+) = '?(\w+)'?( READONLY| CHANGEABLE_IN_READONLY)?")


#: Name, value, and whether it is fixed.
_Setting = tuple[str, str, bool]


def statements(files: Iterable[str] = FILES) -> list[str]:
    """The statements of the files, each in one line."""
    lines = [line for file in files for line in (_INFRA / file).read_text().splitlines() if not line.startswith("--")]
    return [" ".join(each.split()) for each in "\n".join(lines).split(";") if each.strip()]


def granted(role: str) -> set[str]:
    """What a role may read in the database of the pipeline; what it has from other roles not among it."""
    form = re.compile(rf"GRANT SELECT ON checkins\.(\w+) TO {role}")
    return {found[1] for found in map(form.fullmatch, statements()) if found}


@dataclass(slots=True)
class _Rights:
    """What the statements have said so far."""

    #: Of profiles, roles and users: setting, value, and whether it is fixed.
    settings: dict[str, list[_Setting]] = field(default_factory=dict)
    #: Of roles and users: the roles that they hold, and what else is granted.
    roles: dict[str, list[str]] = field(default_factory=dict)
    grants: dict[str, list[str]] = field(default_factory=dict)
    #: Database, table, condition, role.
    policies: list[tuple[str, str, str, str]] = field(default_factory=list)
    users: set[str] = field(default_factory=set)

    def read(self, statement: str) -> None:
        """Take a statement up. Raises ValueError where it is not understood, or speaks of a role that was not made."""
        if found := _NEW_PROFILE.fullmatch(statement):
            self.settings.setdefault(found[1], [])
        elif found := _PROFILE.fullmatch(statement):
            if found[1] not in self.settings:
                raise ValueError(f"unknown profile: {found[1]}")
            self.settings[found[1]] = _settings(found[2])
        elif found := _ROLE.fullmatch(statement):
            self._make(found[1], self.settings[found[2]] if found[2] else [])
        elif found := _GRANT_ROLE.fullmatch(statement):
            self._of(found[2], self.roles).append(self._known(found[1]))
        elif found := _GRANT.fullmatch(statement):
            self._of(found[2], self.grants).append(found[1])
        elif found := _POLICY.fullmatch(statement):
            self.policies.append((found[2], found[3], found[4], self._known(found[5])))
        elif found := _USER.fullmatch(statement):
            self._known(found[2])
            self._make(found[1], [])
            self.users.add(found[1])
        elif found := _REVOKE.fullmatch(statement):
            self._of(found[1], self.grants).clear()
        elif found := _DEFAULT_ROLE.fullmatch(statement):
            # A role that is held and not a default one would have to be asked for.
            if self._of(found[1], self.roles) != [found[2]]:
                raise ValueError(f"not understood: {statement}")
            self.settings[found[1]] = _settings(found[3]) if found[3] else []
        elif not _QUOTA.fullmatch(statement):
            raise ValueError(f"not understood: {statement}")

    def _make(self, name: str, settings: list[_Setting]) -> None:
        self.settings[name], self.roles[name], self.grants[name] = settings, [], []

    def _known(self, name: str) -> str:
        if name not in self.roles:
            raise ValueError(f"unknown role: {name}")
        return name

    def _of(self, name: str, what: dict[str, list[str]]) -> list[str]:
        return what[self._known(name)]

    def held(self, name: str) -> list[str]:
        """A user or role, and all the roles that it holds."""
        return [name, *(each for role in self.roles[name] for each in self.held(role))]


def _settings(text: str) -> list[_Setting]:
    parts = [_SETTING.fullmatch(part.strip()) for part in text.split(",")]
    found = [(part[1], part[2], part[3] is not None) for part in parts if part]
    if len(found) != len(parts):
        raise ValueError(f"not understood: {text}")
    return found


def write_rights(folder: Path, user: str) -> Path:
    """Write configuration under which the embedded engine lets its user do what `user` may, and no more. Returns its file.

    Raises ValueError for statements that are not understood.
    """
    rights = _Rights()
    for statement in statements():
        rights.read(statement)
    if user not in rights.users:
        raise ValueError(f"no such user: {user}")
    names = rights.held(user)
    root = Element("clickhouse")
    profiles, quotas, roles, users = (SubElement(root, name) for name in ("profiles", "quotas", "roles", "users"))
    SubElement(quotas, "default")
    profile = SubElement(profiles, "default")
    constraints = SubElement(profile, "constraints")
    # The user's own settings come last.
    settings = {each[0]: each for name in reversed(names) for each in rights.settings[name]}
    for setting, value, fixed in settings.values():
        SubElement(profile, setting).text = value
        if fixed:
            SubElement(SubElement(constraints, setting), "readonly")
    for name in names[1:]:
        _write_grants(SubElement(roles, name), rights, name)
    default = SubElement(users, "default")
    SubElement(default, "password")
    SubElement(SubElement(default, "networks"), "ip").text = "::/0"
    SubElement(default, "profile").text = "default"
    SubElement(default, "quota").text = "default"
    _write_grants(default, rights, user)
    databases = SubElement(default, "databases")
    for database, table, condition, role in rights.policies:
        if role in names:
            SubElement(SubElement(SubElement(databases, database), table), "filter").text = condition
    (folder / "users.xml").write_bytes(tostring(root))
    config = Element("clickhouse")
    SubElement(SubElement(SubElement(config, "user_directories"), "users_xml"), "path").text = str(folder / "users.xml")
    (folder / "config.xml").write_bytes(tostring(config))
    return folder / "config.xml"


def place_with_rights(folder: Path | str, config: Path | str) -> str:
    """What the engine is opened by: a folder of its own, under the rights of a file of `write_rights`."""
    return f"{folder}?config-file={config}"


def open_with_rights(folder: Path | str, config: Path | str) -> Any:
    """A connection to the engine in that folder; in an interpreter of its own."""
    return clickhouse_connect.get_client(interface="chdb", path=place_with_rights(folder, config))


def _write_grants(element: Element, rights: _Rights, name: str) -> None:
    grants = SubElement(element, "grants")
    for grant in [*(f"GRANT {role}" for role in rights.roles[name]), *rights.grants[name]]:
        SubElement(grants, "query").text = grant
