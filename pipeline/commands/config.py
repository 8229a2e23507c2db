"""`pipeline config`: the effective settings, where each comes from, and an example of the file."""

import json
import os
from collections.abc import Mapping
from typing import Any, Final

import click
from pydantic import SecretStr
from pydantic_settings import EnvSettingsSource, InitSettingsSource

from pipeline.addresses import HIDDEN, without_password
from pipeline.settings import Settings, load_settings

#: Addresses that should hold no password, and are no secrets as a whole.
_ADDRESSES: Final = ("kafka", "oidc_issuer", "oidc_keys")
_PREFIX: Final = str(Settings.model_config["env_prefix"])

#: What the example file shows where the default says nothing.
EXAMPLES: Final[Mapping[str, Any]] = {
    "clock": "events",
    "store": "/var/lib/check-ins",
    "clickhouse_url": "https://pipeline:PASSWORD@clickhouse.example:8443/default",
    "kafka": "kafka-1.example:9092,kafka-2.example:9092",
    "kafka_protocol": "SASL_SSL",
    "kafka_user": "worker",
    "kafka_password": "a secret: better in the environment than here",
    "kafka_ca": "/etc/check-ins/kafka-ca.pem",
    "kafka_certificate": "/etc/check-ins/kafka.pem",
    "kafka_certificate_key": "/etc/check-ins/kafka-key.pem",
    "http_certificate": "/etc/check-ins/pages.pem",
    "http_certificate_key": "/etc/check-ins/pages-key.pem",
    "tokens": "/etc/pipeline/tokens.json",
    "oidc_issuer": "https://login.example/realms/health",
    "oidc_keys": "https://login.example/realms/health/protocol/openid-connect/certs",
    "audit_log": "/var/log/pipeline/audit.jsonl",
    "max_stay_by_category": {"minimarket": "PT1H", "office": "PT10H"},
    "policies": "/etc/check-ins/policies",
    "crowding": {"warning": {"raise_at": 0.95}, "critical": {"raise_at": 1.2, "raise_for": "PT30S"}},
    "crowding_by_category": {"mall": {"warning": {"raise_at": 0.8, "raise_for": "PT5M", "clear_below": 0.75}}},
    "crowding_by_venue": {"mall-0042": {"critical": {"raise_at": 1.0, "clear_for": "PT10M"}}},
    "alertmanager_url": "http://127.0.0.1:9093",
    "keys": "/var/lib/check-in-keys",
    "master_key": "a secret: better in the environment than here",
    "vault_url": "https://vault.example:8200",
    "gateway_devices": "/etc/check-ins/devices",
    "gateway_certificate": "/etc/check-ins/gateway.pem",
    "gateway_certificate_key": "/etc/check-ins/gateway-key.pem",
    "gateway_venues": "/etc/check-ins/venues.csv",
    "venue_code_keys": "/etc/check-ins/venue-keys.json",
    "vault_token": "a secret: better in the environment than here",
}


@click.command(epilog="Example: PIPELINE_MAX_STAY=PT3H pipeline config --descriptions")
@click.option(
    "--format",
    "form",
    type=click.Choice(["toml", "json"]),
    default="toml",
    show_default=True,
    help="json is one object: name → value and source.",
)
@click.option("--descriptions", is_flag=True, help="Say what each setting means.")
@click.option("--example", is_flag=True, help="Print a commented pipeline.toml with every setting instead.")
def command(form: str, descriptions: bool, example: bool) -> None:
    """Show the effective settings and where each comes from: environment, file or default. Secrets are hidden.

    A variable PIPELINE_NAME of the environment wins over pipeline.toml in the current folder (or the file that
    PIPELINE_CONFIG names), which wins over the default.
    """
    if example:
        if form == "json" or descriptions:
            raise click.UsageError("--example is TOML with descriptions: give no other option with it.")
        click.echo(_example(), nl=False)
        return
    settings = load_settings()
    sources = _sources()
    values = settings.model_dump(mode="json")
    values |= {name: without_password(values[name]) for name in _ADDRESSES if values[name]}
    values |= {
        name: without_password(secret.get_secret_value()) if name.endswith("_url") else HIDDEN
        for name, secret in settings
        if isinstance(secret, SecretStr)
    }
    if form == "json":
        click.echo(json.dumps({n: _entry(n, v, sources[n], descriptions) for n, v in values.items()}, indent=2))
        return
    for name, value in values.items():
        if descriptions:
            click.echo(f"\n# {Settings.model_fields[name].description}")
        line = f"# {name} is not set" if value is None else f"{name} = {_toml(value)}"
        click.echo(f"{line}  # {sources[name]}")
    for variable in _unknown_variables():
        click.echo(f"pipeline: {variable} in the environment is the name of no setting", err=True)


def _entry(name: str, value: Any, source: str, description: bool) -> dict[str, Any]:
    entry = {"value": value, "source": source}
    return entry | ({"description": Settings.model_fields[name].description} if description else {})


def _sources() -> dict[str, str]:
    """Setting → default, file, environment, or both of the latter where a table has entries from each."""
    none = InitSettingsSource(Settings, {})
    in_order = Settings.settings_customise_sources(Settings, none, EnvSettingsSource(Settings), none, none)
    environment, file = (source() for source in in_order[1:])
    sources = {}
    for name in Settings.model_fields:
        both = name in file and name in environment and isinstance(file[name], dict)
        sources[name] = (
            "file and environment"
            if both
            else "environment"
            if name in environment
            else "file"
            if name in file
            else "default"
        )
    return sources


def _unknown_variables() -> list[str]:
    names = tuple(f"{_PREFIX}{name}".upper() for name in Settings.model_fields)
    return sorted(
        variable
        for variable in os.environ
        if variable.upper().startswith(_PREFIX)
        and variable.upper() not in (*names, "PIPELINE_CONFIG")
        and not variable.upper().startswith(tuple(f"{name}__" for name in names))
    )


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        entries = [f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items() if v is not None]
        return "{ " + ", ".join(entries) + " }" if entries else "{}"
    return json.dumps(value, ensure_ascii=False)


def _example() -> str:
    lines = [
        "# pipeline.toml: put it in the folder where `pipeline` runs, or name it in PIPELINE_CONFIG.",
        "# What is commented out is the default, or an example where there is none. PIPELINE_<NAME> in the environment wins.",
    ]
    defaults = Settings.model_construct().model_dump(mode="json")
    for name, field in Settings.model_fields.items():
        lines += ["", f"# {field.description}", f"# {name} = {_toml(EXAMPLES.get(name, defaults[name]))}"]
    return "\n".join([*lines, ""])
