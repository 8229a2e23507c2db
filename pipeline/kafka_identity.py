"""What a secured local broker is known by: an authority, a certificate, a password for each user; made once, in one folder."""

import datetime
import ipaddress
import secrets
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pipeline.privacy.secret_files import write_secret_file

#: The user that gives rights, and the broker towards itself.
ADMIN: Final = "admin"
BROKER: Final = "broker"

#: A broker on this machine's own address; whoever exposes one has certificates of their own.
_HOST: Final = "127.0.0.1"
_VALID: Final = datetime.timedelta(days=3650)


def make_identity(folder: Path, users: list[str]) -> None:
    """Write `ca.pem`, `broker.pem` (key and certificate) and `USER.password` of each user; only the first may others read.

    The authority's key is kept nowhere: nobody can make another certificate that clients would take.
    """
    folder.mkdir(mode=0o700)
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority_name = _name("check-in pipeline, local Kafka")
    authority = (
        _certificate(authority_name, authority_name, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    names = [x509.IPAddress(ipaddress.ip_address(_HOST)), x509.DNSName("localhost")]
    # Also a client's: the broker knows itself by it at the controller's door.
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        _certificate(_name(BROKER), authority_name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    for user in users:
        write_secret_file(password_file(folder, user), secrets.token_urlsafe(24))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_secret_file(folder / "broker.pem", (private + certificate.public_bytes(Encoding.PEM)).decode())
    authority_file(folder).write_bytes(authority.public_bytes(Encoding.PEM))


def authority_file(folder: Path) -> Path:
    """What clients are to set as `kafka_ca`."""
    return folder / "ca.pem"


def password_file(folder: Path, user: str) -> Path:
    """Where a user's password is."""
    return folder / f"{user}.password"


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
