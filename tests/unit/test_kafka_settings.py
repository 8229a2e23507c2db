"""Settings of a secured Kafka that do not go together are refused by name; every client library is told the same."""

import ssl
import tomllib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pipeline.errors import UserError
from pipeline.kafka_access import KafkaAccess
from pipeline.kafka_acls import declared_rights
from pipeline.kafka_identity import authority_file, make_identity, password_file
from pipeline.settings import load_settings
from pipeline.topics import declared_topics

ROOT = Path(__file__).resolve().parents[2]
SCRAM = {"kafka_protocol": "SASL_SSL", "kafka_user": "worker", "kafka_password": "s3cret"}


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    make_identity(tmp_path / "secured", ["worker"])
    return tmp_path / "secured"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kafka_protocol": "SASL_SSL"}, "kafka_protocol = SASL_SSL needs kafka_user and kafka_password"),
        ({**SCRAM, "kafka_password": ""}, "kafka_protocol = SASL_SSL needs kafka_user and kafka_password"),
        ({**SCRAM, "kafka_protocol": "PLAINTEXT"}, "kafka_user and kafka_password need kafka_protocol = SASL_SSL"),
        ({**SCRAM, "kafka_protocol": "SSL"}, "kafka_user and kafka_password need kafka_protocol = SASL_SSL, not SSL"),
        ({"kafka_ca": "ca.pem"}, "kafka_ca and kafka_certificate need kafka_protocol = SASL_SSL or SSL"),
        ({**SCRAM, "kafka_protocol": "SASL_PLAINTEXT", "kafka_ca": "ca.pem"}, "need kafka_protocol = SASL_SSL or SSL"),
        ({"kafka_protocol": "SSL", "kafka_certificate": "c.pem"}, "kafka_certificate_key need each other"),
        ({"kafka_protocol": "TLS"}, "setting kafka_protocol: .*PIPELINE_KAFKA_PROTOCOL"),
        ({**SCRAM, "kafka_mechanism": "PLAIN"}, "setting kafka_mechanism: .*PIPELINE_KAFKA_MECHANISM"),
    ],
)
def test_settings_that_do_not_go_together_are_named(given: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        load_settings(**given)
    assert "s3cret" not in str(refused.value)


def test_each_library_is_told_the_same(identity: Path) -> None:
    access = load_settings(**SCRAM, kafka_ca=str(authority_file(identity))).kafka_access
    options, faust = access.options(), access.faust_credentials()
    assert (options["security_protocol"], faust.protocol.value) == ("SASL_SSL", "SASL_SSL")
    assert (options["sasl_mechanism"], faust.mechanism.value) == ("SCRAM-SHA-512", "SCRAM-SHA-512")
    assert (options["sasl_plain_username"], faust.username) == ("worker", "worker")
    assert (options["sasl_plain_password"], faust.password) == ("s3cret", "s3cret")
    for tls in (options["ssl_context"], faust.ssl_context):
        assert (tls.verify_mode, tls.check_hostname) == (ssl.CERT_REQUIRED, True)
        assert len(tls.get_ca_certs()) == 1
    assert "s3cret" not in f"{access} {access!r}"


def test_without_settings_nothing_is_asked_of_a_cluster() -> None:
    access = load_settings().kafka_access
    assert access.options() == {"security_protocol": "PLAINTEXT"}
    assert access.faust_credentials() is None


def test_our_own_certificate_is_shown_to_the_broker(identity: Path) -> None:
    both = identity / "broker.pem"
    access = load_settings(
        kafka_protocol="SSL", kafka_ca=str(authority_file(identity)), kafka_certificate=both, kafka_certificate_key=both
    ).kafka_access
    assert access.faust_credentials().protocol.value == "SSL"
    assert set(access.options()) == {"security_protocol", "ssl_context"}


@pytest.mark.parametrize("text", [None, "no PEM"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, identity: Path, text: str | None) -> None:
    file = tmp_path / "file.pem"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=rf"setting kafka_ca: {file} cannot be used"):
        KafkaAccess("k:9093", "SSL", authorities=file).options()
    with pytest.raises(UserError, match=rf"setting kafka_certificate: {file} cannot be used"):
        KafkaAccess(
            "k:9093", "SSL", authorities=authority_file(identity), certificate=file, certificate_key=file
        ).options()


def test_a_local_identity_is_by_its_own_authority_and_for_its_owner_alone(identity: Path) -> None:
    authority = x509.load_pem_x509_certificate(authority_file(identity).read_bytes())
    certificate = x509.load_pem_x509_certificate((identity / "broker.pem").read_bytes())
    certificate.verify_directly_issued_by(authority)
    key = load_pem_private_key((identity / "broker.pem").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.public_key() == certificate.public_key()
    assert identity.stat().st_mode & 0o077 == 0
    for secret in (identity / "broker.pem", password_file(identity, "worker")):
        assert secret.stat().st_mode & 0o077 == 0


def test_the_table_of_rights_names_topics_and_operations_that_there_are() -> None:
    rights = declared_rights("a-group")
    assert {right.name for right in rights if right.kind == "topic"} == {t.name for t in declared_topics(1, None)}
    assert ("worker", "a-group") in {(right.principal, right.name) for right in rights if right.kind == "group"}
    known = {"Read", "Write", "Create", "Delete", "Alter", "Describe", "AlterConfigs", "DescribeConfigs"}
    assert {right.operation for right in rights} <= known
    blocks = tomllib.loads((ROOT / "infra" / "kafka" / "acls.toml").read_text())["allow"]
    assert all(set(block) <= {"principal", "topics", "groups", "operations"} for block in blocks)


def test_nobody_but_the_workers_reads_scans_and_nobody_who_gives_topics_reads_one() -> None:
    readers = {
        right.principal for right in declared_rights("g") if (right.name, right.operation) == ("check-ins", "Read")
    }
    assert readers == {"worker"}
    operator = {right.operation for right in declared_rights("g") if right.principal == "operator"}
    assert "Read" not in operator


def test_what_follows_from_cases_is_read_by_tracers_alone() -> None:
    of_cases = {"exposures", "venue-warnings"}
    reading = {
        right.principal for right in declared_rights("g") if right.name in of_cases and right.operation == "Read"
    }
    assert reading == {"tracer"}
