"""Every setting, in one typed place: from `PIPELINE_*` in the environment, over a TOML file, over the defaults.

The TOML file is `pipeline.toml` in the current folder, or the one that `PIPELINE_CONFIG` names.
"""

import os
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from pipeline.core.levels import LEVELS, LONGEST_HOLD, Rule
from pipeline.errors import UserError
from pipeline.kafka_access import KafkaAccess, Mechanism, Protocol
from pipeline.privacy.canonical import check_country

#: A check-out more than this after its check-in never closes that visit (contract, section 2).
HARD_LIMIT = timedelta(hours=24)


class CrowdingRule(BaseModel):
    """When a level of crowding is raised and cleared: what is left out stays as it is by default, or for the category."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    raise_at: float | None = Field(None, gt=0, le=10, description="Raised from this share of the capacity on, …")
    raise_for: timedelta | None = Field(None, description="… once it has lasted so long.")
    clear_below: float | None = Field(None, gt=0, le=10, description="Cleared below this share, …")
    clear_for: timedelta | None = Field(None, description="… once it has lasted so long.")

    @field_validator("raise_for", "clear_for")
    @classmethod
    def _holds_are_kept_in_memory(cls, value: timedelta | None) -> timedelta | None:
        if value is not None and not timedelta(seconds=1) <= value <= timedelta(milliseconds=LONGEST_HOLD):
            raise ValueError("must be between 1 second and 1 hour")
        return value


CrowdingRules = dict[Literal["warning", "critical"], CrowdingRule]

_CROWDING: CrowdingRules = {
    "warning": CrowdingRule(
        raise_at=1.0, raise_for=timedelta(minutes=2), clear_below=0.9, clear_for=timedelta(minutes=5)
    ),
    "critical": CrowdingRule(
        raise_at=1.1, raise_for=timedelta(minutes=1), clear_below=0.9, clear_for=timedelta(minutes=5)
    ),
}


class Settings(BaseSettings):
    """The effective settings of one process. All times are durations; all results are in UTC."""

    model_config = SettingsConfigDict(env_prefix="PIPELINE_", env_nested_delimiter="__", extra="forbid", frozen=True)

    home: Path = Field(Path(".pipeline"), description="Holds the local broker's data and the default store.")
    clock: Literal["wall", "events"] | None = Field(
        None,
        description="What `as_of` is: the current time, or the latest scan. Default: wall for worker, else events.",
    )
    store: Path | None = Field(None, description="Embedded ClickHouse lives here. Default: HOME/store.")
    clickhouse_url: SecretStr | None = Field(
        None,
        description="A ClickHouse server (http[s]://user:password@host:port/database) instead of the embedded one.",
    )
    kafka: str | None = Field(
        None, description="host:port[,host:port…] of an existing cluster instead of the local one."
    )
    kafka_protocol: Protocol = Field(
        "PLAINTEXT",
        description="What the cluster's listener speaks, in Kafka's words; SASL_SSL asks for a user by TLS.",
    )
    kafka_mechanism: Mechanism = Field("SCRAM-SHA-512", description="How the password is proved to it.")
    kafka_user: str | None = Field(None, description="Our user there: a principal of infra/kafka/acls.toml …")
    kafka_password: SecretStr | None = Field(None, description="… and its password.")
    kafka_ca: Path | None = Field(
        None, description="The authorities that its certificates are believed by, PEM. Default: the system's."
    )
    kafka_certificate: Path | None = Field(
        None, description="Our own certificate chain, PEM, where the cluster asks for one …"
    )
    kafka_certificate_key: Path | None = Field(None, description="… and its private key, PEM.")
    kafka_port: int = Field(19092, ge=1, le=65535, description="The local broker's port on 127.0.0.1.")
    partitions: int = Field(4, ge=1, le=1024, description="Partitions of the topics that `topics` creates.")
    group: str = Field("check-in-pipeline", description="The Kafka consumer group of the workers.")
    http_host: str = Field(
        "127.0.0.1",
        description="The address to listen on. On anything but loopback every request needs a token.",
    )
    http_port: int = Field(
        8080, ge=0, le=65535, description="The pages, the API, /metrics, /livez and /readyz; 0 takes a free one."
    )

    http_certificate: Path | None = Field(None, description="Their TLS certificate chain, PEM …")
    http_certificate_key: Path | None = Field(
        None, description="… and its private key, PEM. Both are read again when they change."
    )

    stale_after: timedelta = Field(
        timedelta(minutes=2), description="The live page says that its data is stale after so long without a new scan."
    )

    max_stay: timedelta = Field(
        timedelta(hours=4), description="A visit without a check-out ends this long after its check-in."
    )
    max_stay_by_category: dict[str, timedelta] = Field(
        default_factory=dict, description="max_stay of one venue category, where it differs."
    )
    crowding: CrowdingRules = Field(
        default_factory=dict,
        description="When a venue counts as crowded, by level (warning, critical): raise_at, raise_for, clear_below, clear_for.",
    )
    crowding_by_category: dict[str, CrowdingRules] = Field(
        default_factory=dict, description="The same for one venue category, where it differs."
    )
    crowding_by_venue: dict[str, CrowdingRules] = Field(
        default_factory=dict, description="The same for one venue, where it differs from its category's."
    )
    crowding_basis: Literal["counted", "expected", "high", "probability"] = Field(
        "counted",
        description="What crowding compares with the capacity: the persons counted, or, where a model is in use, its estimate of "
        "those really there: expected, high, or probability (raised from P ≥ 0.5 on, cleared at P < 0.2).",
    )
    alertmanager_url: SecretStr | None = Field(
        None,
        description="Alertmanager, for crowding alerts (http[s]://[user:password@]host:port). Default: none is told.",
    )
    alert_recent: timedelta = Field(
        timedelta(minutes=5),
        description="Alertmanager is not told of alerts raised longer ago than this when they are first seen: history.",
    )
    retention: timedelta = Field(timedelta(days=14), description="How far back scans are taken and corrected.")
    late_window: timedelta = Field(
        timedelta(hours=6), description="Scans up to this late are corrected from memory; later ones from the store."
    )
    model_refit: Literal["off", "nightly"] = Field(
        "off",
        description="nightly: when a UTC day is closed, a worker checks the model of presence, fits it anew, puts it in force.",
    )
    flush_rows: int = Field(200_000, ge=1, description="Write to the store after this many scans …")
    flush_seconds: float = Field(0.5, gt=0, le=60, description="… or after this long, whichever comes first.")
    buffer_scans: int = Field(
        600_000, ge=1_000, description="Scans held while the store is away; then fetching pauses. Nothing is dropped."
    )
    dead_letter_share: float = Field(
        0.5, ge=0, le=1, description="A worker stops when more than this share of what it reads would be dead letters …"
    )
    dead_letter_least: int = Field(1_000, ge=1, description="… and at least so many …")
    dead_letter_window: timedelta = Field(timedelta(minutes=1), description="… within this time. A share of 1: never.")
    store_memory_mib: int = Field(2048, ge=256, description="Memory limit of the embedded ClickHouse, in MiB.")
    durable_writes: bool = Field(False, description="fsync each insert: survives a power cut, at some cost in delay.")

    tokens: Path | None = Field(None, description="The file of static tokens. Default: HOME/tokens.json.")
    oidc_issuer: str | None = Field(None, description="The identity provider whose tokens are taken: its issuer.")
    oidc_audience: str = Field("check-in-pipeline", description="The audience that its tokens must be for.")
    oidc_keys: str | None = Field(
        None, description="Its keys (JWKS): an https:// address or a file. Default: ISSUER/.well-known/jwks.json."
    )
    oidc_role_claim: str = Field("roles", description="The claim that holds the roles.")
    audit_log: Path | None = Field(
        None,
        description="Every read about persons, and every change of access, is noted here. Default: HOME/audit.jsonl.",
    )
    purposes: tuple[str, ...] = Field(
        ("contact-tracing", "data-quality", "legal-request"), description="Why persons may be read about."
    )
    reads_per_minute: int = Field(
        1_200,
        ge=1,
        description="Requests to the API that one holder of a token may make, and to /released all without one.",
    )
    person_reads_per_minute: int = Field(60, ge=1, description="Requests about persons that one caller may make.")
    closing_by_second_person: bool = Field(
        False,
        description="What takes back a case's exposures is sent once a second person has asked for it too, both by the API.",
    )

    release_epsilon: float = Field(
        1.0, gt=0, le=1, description="What a day's release with noise may spend of a visitor's privacy (ε of that day)."
    )
    release_base: int = Field(
        5, ge=5, le=10, multiple_of=5, description="What numbers of the released table are rounded to: 5 or 10."
    )

    policy: str = Field("who", description="The exposure policy of cases that name none.")
    policies: Path | None = Field(
        None, description="A folder with exposure policies of your own, beside the shipped ones."
    )
    timezone: str = Field("UTC", description="IANA name of the time zone whose days onset and specimen are given in.")

    keys: Path | None = Field(None, description="The ring of keys for pseudonyms lives here. Default: HOME/keys.")
    master_key: SecretStr | None = Field(
        None,
        description="The master key of the ring, instead of the file KEYS/master.key; NEW,OLD while it is renewed.",
    )
    vault_url: SecretStr | None = Field(
        None, description="HashiCorp Vault, whose transit engine is the master key instead: https://host:port."
    )
    vault_token: SecretStr | None = Field(None, description="The vault's token.")
    vault_mount: str = Field("transit", description="Where the vault's transit engine is mounted.")
    vault_key_prefix: str = Field("check-ins", description="What the names of our transit keys begin with.")
    phone_country: str = Field(
        "", description="Prefix, without +, of phone numbers that begin with one 0. Default: such numbers are refused."
    )

    gateway_host: str = Field(
        "127.0.0.1",
        description=(
            "Where the gateway listens. Anything but loopback needs gateway_devices, gateway_certificate, and gateway_venues or "
            "required venue_codes."
        ),
    )
    gateway_port: int = Field(8081, ge=0, le=65535, description="The gateway's port; 0 takes a free one.")
    gateway_devices: Path | None = Field(
        None,
        description="The file of the devices that may send, with the hashes of their tokens. Default: anybody on loopback.",
    )
    gateway_certificate: Path | None = Field(None, description="The gateway's TLS certificate chain, PEM …")
    gateway_certificate_key: Path | None = Field(None, description="… and its private key, PEM.")
    gateway_device_rate: float = Field(50, gt=0, description="Scans a second that one device may send in the long run.")
    gateway_venue_rate: float = Field(
        200, gt=0, description="Scans a second that may be sent of one venue in the long run."
    )
    gateway_burst_seconds: float = Field(30, ge=1, description="How many seconds' worth of both may come at once.")
    gateway_pending: int = Field(
        20_000, ge=100, description="Scans that wait for Kafka before the gateway answers 503."
    )
    gateway_venues: Path | None = Field(
        None,
        description="The registry's file (CSV, NDJSON): a venue_id that is not in it is refused. Default: any is taken.",
    )
    venue_codes: Literal["optional", "required", "fresh"] = Field(
        "optional",
        description="required: the gateway takes scans with a venue's signed code only; fresh: of a changing display only.",
    )
    venue_code_keys: Path | None = Field(None, description="The public keys that venue codes are judged by (JWKS).")

    @field_validator("max_stay", "max_stay_by_category")
    @classmethod
    def _stay_is_within_a_day(cls, value: timedelta | dict[str, timedelta]) -> timedelta | dict[str, timedelta]:
        for stay in value.values() if isinstance(value, dict) else (value,):
            if not timedelta(minutes=1) <= stay <= HARD_LIMIT:
                raise ValueError("must be between 1 minute and 24 hours")
        return value

    @field_validator("late_window")
    @classmethod
    def _late_window_holds_the_widest_rolling_window(cls, value: timedelta) -> timedelta:
        if value < timedelta(hours=2):
            raise ValueError("must be at least 2 hours")
        return value

    @field_validator("timezone")
    @classmethod
    def _timezone_is_known(cls, value: str) -> str:
        try:
            return ZoneInfo(value).key
        except (KeyError, ValueError, OSError):
            raise ValueError("must be an IANA time zone such as Asia/Jakarta") from None

    @field_validator("phone_country")
    @classmethod
    def _country_has_a_prefix(cls, value: str) -> str:
        return check_country(value)

    @field_validator("alertmanager_url")
    @classmethod
    def _alertmanager_speaks_http(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value

    @model_validator(mode="after")
    def _required_codes_can_be_judged(self) -> "Settings":
        if self.venue_codes != "optional" and self.venue_code_keys is None:
            raise ValueError(f"venue_codes = {self.venue_codes} needs venue_code_keys")
        return self

    @model_validator(mode="after")
    def _certificates_have_keys(self) -> "Settings":
        for whose in ("http", "gateway", "kafka"):
            names = f"{whose}_certificate", f"{whose}_certificate_key"
            if len([name for name in names if getattr(self, name) is not None]) == 1:
                raise ValueError(f"{names[0]} and {names[1]} need each other")
        return self

    def http_address(self, port: int) -> str:
        """Where the pages and the API are, at the port in use, which may be another than was asked for."""
        return f"{'http' if self.http_certificate is None else 'https'}://{self.http_host}:{port}"

    @model_validator(mode="after")
    def _kafka_is_told_what_its_protocol_needs(self) -> "Settings":
        user, password, protocol = self.kafka_user, self.kafka_password, self.kafka_protocol
        if protocol.startswith("SASL_") and not (user and password and password.get_secret_value()):
            raise ValueError(f"kafka_protocol = {protocol} needs kafka_user and kafka_password")
        # A secret that is given and not used is a cluster believed to be guarded.
        if not protocol.startswith("SASL_") and (user or password):
            raise ValueError(f"kafka_user and kafka_password need kafka_protocol = SASL_SSL, not {protocol}")
        files = (self.kafka_ca, self.kafka_certificate, self.kafka_certificate_key)
        if not protocol.endswith("SSL") and any(files):
            raise ValueError(f"kafka_ca and kafka_certificate need kafka_protocol = SASL_SSL or SSL, not {protocol}")
        return self

    @model_validator(mode="after")
    def _crowding_clears_below_where_it_is_raised(self) -> "Settings":
        for category in ("", *self.crowding_by_category):
            for venue in ("", *self.crowding_by_venue):
                for level, rule in zip(LEVELS, self.crowding_of(category, venue), strict=True):
                    if rule.clear_below > rule.raise_at:
                        place = f"category {category!r}" if category else f"venue {venue!r}" if venue else "all venues"
                        raise ValueError(f"crowding {level} of {place}: clear_below must not exceed raise_at")
        return self

    def crowding_of(self, category: str, venue: str) -> tuple[Rule, ...]:
        """The rules of crowding that hold for a venue, one for each of LEVELS."""
        layers = (_CROWDING, self.crowding, self.crowding_by_category.get(category), self.crowding_by_venue.get(venue))
        found = []
        for level in LEVELS:
            values: dict[str, Any] = {}
            for layer in layers:
                rule = (layer or {}).get(level)
                values |= rule.model_dump(exclude_none=True) if rule else {}
            ms = timedelta(milliseconds=1)
            found.append(
                Rule(
                    round(values["raise_at"] * 1000),
                    values["raise_for"] // ms,
                    round(values["clear_below"] * 1000),
                    values["clear_for"] // ms,
                )
            )
        return tuple(found)

    @cached_property
    def store_path(self) -> Path:
        """Where the embedded ClickHouse lives."""
        return (self.store or self.home / "store").absolute()

    @cached_property
    def keys_path(self) -> Path:
        """Where the ring of keys lives."""
        return (self.keys or self.home / "keys").absolute()

    @property
    def longest_stay(self) -> timedelta:
        """The longest `max_stay` of any category."""
        return max([self.max_stay, *self.max_stay_by_category.values()])

    @property
    def tokens_path(self) -> Path:
        """The file of static tokens."""
        return self.tokens or self.home / "tokens.json"

    @property
    def audit_path(self) -> Path:
        """The audit log."""
        return self.audit_log or self.home / "audit.jsonl"

    @property
    def kafka_address(self) -> str:
        """The bootstrap address of the cluster in use. Raises UserError where it holds more than hosts and ports."""
        if self.kafka and "@" in self.kafka:
            raise UserError(
                "the setting kafka holds a user or a password, which Kafka's addresses never do: give host:port"
            )
        return self.kafka or f"127.0.0.1:{self.kafka_port}"

    @property
    def kafka_access(self) -> KafkaAccess:
        """The way into the cluster in use. Raises UserError as `kafka_address` does."""
        return KafkaAccess(
            self.kafka_address,
            self.kafka_protocol,
            self.kafka_mechanism,
            self.kafka_user or "",
            self.kafka_password.get_secret_value() if self.kafka_password else "",
            self.kafka_ca,
            self.kafka_certificate,
            self.kafka_certificate_key,
        )

    def stay_of(self, category: str) -> timedelta:
        """The `max_stay` that holds for a venue category."""
        return self.max_stay_by_category.get(category, self.max_stay)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment, which wins over the TOML file."""
        toml = TomlConfigSettingsSource(settings_cls, Path(os.environ.get("PIPELINE_CONFIG", "pipeline.toml")))
        return init_settings, env_settings, toml


def load_settings(**overrides: object) -> Settings:
    """Read the settings; `overrides` (those that are not None) win over environment and file.

    Raises UserError that names the setting and what is wrong with it.
    """
    config = os.environ.get("PIPELINE_CONFIG")
    if config and not Path(config).is_file():
        raise UserError(f"PIPELINE_CONFIG names {config}, which is not a file")
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"]]
        if not place:
            raise UserError(f"the settings do not go together: {first['msg'].removeprefix('Value error, ')}") from None
        raise UserError(
            f"setting {'.'.join(place)}: {first['msg']} (set it as PIPELINE_{place[0].upper()} or in pipeline.toml)"
        ) from None
    except ValueError as error:
        raise UserError(f"the settings file cannot be read as TOML: {error}") from None
