"""Keys from keys: NIST SP 800-108r1, the counter mode with HMAC-SHA-256."""

from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

#: Bytes of every secret and derived key.
KEY_BYTES: Final = 32


def derive(secret: bytes, purpose: str, context: str) -> bytes:
    """The key of 32 bytes for one purpose in one context; keys of other purposes or contexts tell nothing about it.

    The fixed input is purpose ‖ 0x00 ‖ context ‖ the length in bits, as SP 800-108r1, section 4.1, has it; counter and length
    are 32 bits, big-endian, and the counter comes first. The purpose must hold no NUL.
    """
    assert "\0" not in purpose, "the purpose ends at its NUL"
    function = KBKDFHMAC(
        algorithm=SHA256(),
        mode=Mode.CounterMode,
        length=KEY_BYTES,
        rlen=4,
        llen=4,
        location=CounterLocation.BeforeFixed,
        label=purpose.encode(),
        context=context.encode(),
        fixed=None,
    )
    return function.derive(secret)
