"""The shipped policies, one TOML file each, and those of the user's own folder."""

import tomllib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from pipeline.core.tracing.policy import Policy, parse_policy
from pipeline.errors import UserError


class Policies:
    """Every version of every policy that is known, by id."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._versions: dict[str, list[Policy]] = {}
        for policy in sorted(policies, key=lambda policy: (policy.id, policy.effective_from)):
            self._versions.setdefault(policy.id, []).append(policy)

    def __iter__(self) -> Iterator[Policy]:
        """By id, older versions first."""
        return (policy for versions in self._versions.values() for policy in versions)

    @property
    def ids(self) -> tuple[str, ...]:
        """Known ids, sorted."""
        return tuple(self._versions)

    def of(self, policy_id: str, at_ms: int) -> Policy:
        """The version in effect at an instant (ms since the epoch, UTC); the first one also before its day.

        A policy takes effect at 00:00 UTC. Raises UserError naming the known ids for an unknown one.
        """
        if policy_id not in self._versions:
            raise UserError(f"there is no policy {policy_id}: known are {', '.join(self.ids)}")
        day = datetime.fromtimestamp(at_ms // 1000, UTC).date()
        versions = self._versions[policy_id]
        return next((policy for policy in reversed(versions) if policy.effective_from <= day), versions[0])


def load_policies(folder: Path | None) -> Policies:
    """The shipped policies and, if given, those of every *.toml in `folder`: new ids, or other versions of shipped ones.

    Raises UserError with the file and what is wrong in it.
    """
    shipped = sorted(
        (file for file in files(__name__).iterdir() if file.name.endswith(".toml")), key=lambda file: file.name
    )
    texts = [(file.name, file.read_text("utf-8")) for file in shipped]
    if folder is not None:
        if not folder.is_dir():
            raise UserError(f"setting policies: {folder} is not a folder")
        try:
            texts += [(str(path), path.read_text("utf-8")) for path in sorted(folder.glob("*.toml"))]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"a policy in {folder} cannot be read: {error}") from None
    known: list[Policy] = []
    taken: dict[tuple[str, str], str] = {}
    for where, text in texts:
        try:
            policy = parse_policy(tomllib.loads(text), where)
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"{where} is not TOML: {error}") from None
        except ValueError as error:
            raise UserError(str(error)) from None
        for what in (f"a version {policy.version}", f"a version in effect from {policy.effective_from}"):
            other = taken.setdefault((policy.id, what), where)
            if other != where:
                raise UserError(f"{where}: policy {policy.id} has {what} already, in {other}; give yours another")
        known.append(policy)
    return Policies(known)
