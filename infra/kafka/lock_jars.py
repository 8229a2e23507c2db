"""Write jars.lock anew: every jar of Apache Kafka's server, its version and SHA-256.

To move to another Kafka: change KAFKA (and LOGGING to the log4j that it brings), run this file, run the tests.
"""

import hashlib
import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import jgo
from jgo.maven import MavenContext

KAFKA = "org.apache.kafka:kafka_2.13:4.4.0"
#: Kafka's jars bring slf4j and log4j but not the bridge between them: without it the broker logs nothing.
LOGGING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5"


def main() -> None:
    """Fetch into an empty cache, so that nothing left on this machine gets locked."""
    # jgo warns where a jar differs from the checksum that its repository publishes.
    logging.basicConfig(level=logging.WARNING)
    lines = set()
    with TemporaryDirectory() as cache:
        context = MavenContext(repo_cache=Path(cache))
        for found in jgo.resolve(KAFKA) + jgo.resolve(LOGGING)[:1]:
            jar = context.project(found.groupId, found.artifactId).at_version(found.version).artifact().resolve()
            digest = hashlib.sha256(jar.read_bytes()).hexdigest()
            lines.add(f"{found.groupId}:{found.artifactId}:{found.version} {digest}\n")
    header = f"# {KAFKA} and all that it needs: group:artifact:version SHA-256. Written by lock_jars.py.\n"
    Path(__file__).with_name("jars.lock").write_text(header + "".join(sorted(lines)))


if __name__ == "__main__":
    main()
