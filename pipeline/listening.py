"""The socket that an HTTP server of ours listens on: taken before anything else starts, so that a taken port is said at once."""

import errno
import socket

from pipeline.errors import UserError


def bound_socket(host: str, port: int, settings: str, whose: str = "") -> socket.socket:
    """A TCP socket at an address of this machine, not listening yet; port 0 takes a free one.

    Raises UserError, which names the settings `settings`_PORT and `settings`_HOST; `whose` says who may have the port.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} on {host} is taken{whose}; set {settings}_PORT to another, or to 0") from None
        raise UserError(
            f"cannot listen on {host}:{port}: {error.strerror}; set {settings}_HOST to an address of this machine"
        ) from None
    return bound
