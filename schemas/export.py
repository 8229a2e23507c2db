"""The models written as JSON Schema 2020-12 (`schemas/json`) and AsyncAPI 3.0 (`schemas/asyncapi.yaml`).

`python -m schemas.export` writes them; with `--check` it writes nothing and exits with status 1 if a file is out of
step with the models. Needs PyYAML, of the extra `dev`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import click
import yaml
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from schemas.alert import CrowdingAlert
from schemas.case_report import CaseReport
from schemas.dead_letter import DeadLetter
from schemas.exposure import Exposure
from schemas.gateway_scan import GatewayScan
from schemas.scan import Scan
from schemas.venue import Venue
from schemas.venue_warning import VenueWarning

HERE: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Channel:
    """One topic: what its records hold, their key, and what the pipeline does with it."""

    topic: str
    model: type[BaseModel]
    key: str
    action: Literal["receive", "send"]
    purpose: str

    @property
    def name(self) -> str:
        """The message's name, as in the file of its schema."""
        return "".join(f"_{char.lower()}" if char.isupper() else char for char in self.model.__name__).lstrip("_")

    @property
    def examples(self) -> list[dict[str, object]]:
        """The model's own examples."""
        extra: Any = self.model.model_config["json_schema_extra"]
        return list(extra["examples"])


CHANNELS: Final = (
    Channel("check-ins", Scan, "venue_id", "receive", "QR check-ins and check-outs at venues."),
    Channel("venues", Venue, "venue_id", "receive", "The venue registry; compacted."),
    Channel(
        "case-reports", CaseReport, "case_id", "receive", "Infected visitors, as the health authority reports them."
    ),
    Channel(
        "dead-letters", DeadLetter, "", "send", "Records that cannot be taken, byte for byte; the reason in headers."
    ),
    Channel("crowding-alerts", CrowdingAlert, "venue_id", "send", "Venues that are crowded, or no longer are."),
    Channel("exposures", Exposure, "case_id", "send", "Visits that overlap a case's visit at the same venue."),
    Channel("venue-warnings", VenueWarning, "venue_id", "send", "Venues where infectious visitors were, and when."),
)


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The model as a JSON Schema document: what readers of JSON may expect, and producers must keep to."""
    return {"$schema": GenerateJsonSchema.schema_dialect, **model.model_json_schema()}


def _message(channel: Channel) -> dict[str, Any]:
    schema = {"$ref": f"./json/{channel.name}.schema.json"}
    if channel.model is DeadLetter:
        return {
            "name": channel.name,
            "summary": "A refused record: its own key and value, unchanged.",
            "contentType": "application/octet-stream",
            "headers": schema,
            "payload": {"type": "string", "format": "binary"},
            "bindings": {"kafka": {"key": {"type": "string", "format": "binary"}}},
            "examples": [{"headers": example, "payload": "{"} for example in channel.examples],
        }
    key = channel.model.model_json_schema()["properties"][channel.key]
    return {
        "name": channel.name,
        "contentType": "application/json",
        "payload": schema,
        "bindings": {
            "kafka": {"key": {"type": "string", "description": f"{channel.key}, UTF-8", "pattern": key["pattern"]}}
        },
        "examples": [{"payload": example} for example in channel.examples],
    }


def asyncapi() -> dict[str, Any]:
    """The topics, their messages and what the pipeline does with them, as an AsyncAPI 3.0 document."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "The check-in pipeline",
            "version": "1.0.0",
            "description": "Kafka topics in and out. Unknown fields are ignored. What is sent has a deterministic id.",
        },
        "defaultContentType": "application/json",
        "channels": {
            channel.topic: {
                "address": channel.topic,
                "description": channel.purpose,
                "messages": {channel.name: {"$ref": f"#/components/messages/{channel.name}"}},
            }
            for channel in CHANNELS
        },
        "operations": {
            f"{channel.action}-{channel.topic}": {
                "action": channel.action,
                "channel": {"$ref": f"#/channels/{channel.topic}"},
                "messages": [{"$ref": f"#/channels/{channel.topic}/messages/{channel.name}"}],
            }
            for channel in CHANNELS
        },
        "components": {"messages": {channel.name: _message(channel) for channel in CHANNELS}},
    }


def exported() -> dict[Path, str]:
    """Every exported file with its text, from the models as they are."""
    files = {
        HERE / "json" / f"{channel.name}.schema.json": json.dumps(json_schema(channel.model), indent=2) + "\n"
        for channel in CHANNELS
    }
    # Not of a topic: it comes over HTTP, to the gateway.
    files[HERE / "json" / "gateway_scan.schema.json"] = json.dumps(json_schema(GatewayScan), indent=2) + "\n"
    files[HERE / "asyncapi.yaml"] = "# Written by `python -m schemas.export`.\n" + yaml.dump(
        json.loads(json.dumps(asyncapi())), Dumper=yaml.SafeDumper, sort_keys=False, allow_unicode=True, width=120
    )
    return files


@click.command(epilog="Example: python -m schemas.export --check")
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if a file is out of step with the models.")
def main(check: bool) -> None:
    """Write the models as JSON Schema and AsyncAPI."""
    files = exported()
    strays = set((HERE / "json").glob("*.json")) - set(files)
    if check:
        stale = sorted(
            strays | {path for path, text in files.items() if not path.is_file() or path.read_text("utf-8") != text}
        )
        if stale:
            names = ", ".join(str(path.relative_to(HERE.parent)) for path in stale)
            raise click.ClickException(
                f"out of step with the models: {names}; run `make schemas` and commit the result"
            )
        return
    (HERE / "json").mkdir(exist_ok=True)
    for path, text in files.items():
        path.write_text(text, "utf-8", newline="\n")
    for path in strays:
        path.unlink()


if __name__ == "__main__":
    main()
