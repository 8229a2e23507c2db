"""Who may do what in Kafka: read from infra/kafka/acls.toml, put in force and compared with what a cluster has."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)

from pipeline.cluster import open_admin
from pipeline.errors import UserError
from pipeline.kafka_access import KafkaAccess
from pipeline.kafka_jars import infra_file

#: What stands for the setting `group` in the file.
_GROUP: Final = "GROUP"


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One operation on one topic or group, allowed to one user from any host. Names of operations are Kafka's: `AlterConfigs`."""

    principal: str
    kind: Literal["topic", "group"]
    name: str
    operation: str

    def __str__(self) -> str:
        return f"{self.principal}: {self.operation} of {self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class RightsState:
    """What was found: rights given just now, those that were there, and those of our users that are not in the file."""

    given: tuple[Right, ...]
    present: tuple[Right, ...]
    superfluous: tuple[str, ...]


def declared_rights(group: str) -> tuple[Right, ...]:
    """Every right of infra/kafka/acls.toml, for workers of this consumer group. Raises UserError outside a checkout."""
    table = tomllib.loads(infra_file("acls.toml").read_text())
    return tuple(
        sorted(
            {
                Right(each["principal"], kind, group if name == _GROUP else name, operation)
                for each in table["allow"]
                for kind in _KINDS
                for name in each.get(f"{kind}s", ())
                for operation in each["operations"]
            }
        )
    )


def ensure_rights(kafka: KafkaAccess | str, rights: Iterable[Right]) -> RightsState:
    """Give the rights that are missing. What else these users are allowed is named, and left: somebody gave it to them.

    Raises UserError when Kafka cannot be reached, has no authorizer, or does not let us.
    """
    wanted = tuple(rights)
    principals = {f"User:{right.principal}" for right in wanted}
    with open_admin(kafka) as admin:
        anything = ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)
        found, _ = admin.describe_acls(ACLFilter(None, None, ACLOperation.ANY, ACLPermissionType.ANY, anything))
        known = {_key(each): each for each in found if each.principal in principals}
        asked = {_key(_acl(right)): right for right in wanted}
        missing = [right for key, right in asked.items() if key not in known]
        if missing:
            refused = admin.create_acls([_acl(right) for right in missing])["failed"]
            if refused:
                raise UserError(f"Kafka did not give {len(refused)} of {len(missing)} rights ({refused[0].__name__})")
    extra = tuple(sorted(_words(each) for key, each in known.items() if key not in asked))
    return RightsState(tuple(missing), tuple(right for right in wanted if right not in missing), extra)


_KINDS: Final[dict[Literal["topic", "group"], Any]] = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP}


def _acl(right: Right) -> Any:
    # AlterConfigs → ALTER_CONFIGS
    operation = "".join(f"_{letter}" if letter.isupper() else letter for letter in right.operation).upper().strip("_")
    return ACL(
        f"User:{right.principal}",
        "*",
        ACLOperation[operation],
        ACLPermissionType.ALLOW,
        ResourcePattern(_KINDS[right.kind], right.name, ACLResourcePatternType.LITERAL),
    )


def _key(acl: Any) -> tuple[object, ...]:
    pattern = acl.resource_pattern
    return (
        acl.principal,
        acl.host,
        acl.operation,
        acl.permission_type,
        pattern.resource_type,
        pattern.resource_name,
        pattern.pattern_type,
    )


def _words(acl: Any) -> str:
    pattern = acl.resource_pattern
    return (
        f"{acl.principal.removeprefix('User:')}: {acl.permission_type.name} {acl.operation.name} of "
        f"{pattern.pattern_type.name} {pattern.resource_type.name} {pattern.resource_name} from host {acl.host}"
    )
