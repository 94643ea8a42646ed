"""The lines that workers exchange at the rendezvous, and what is in them that only this job's workers can know.

A line is "lockstep ", the HMAC-SHA256 of its content in hexadecimal and a space where LOCKSTEP_TOKEN is set, and a JSON
value. The HMAC of an answer is that of the worker's line and the answer, so that no older answer passes for it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import json
import os
import re
import socket
from typing import Any

GREETING = b"lockstep "
LONGEST = 2**22  # bytes of a worker's line
TOKEN = "LOCKSTEP_TOKEN"
_DEEPEST = 20  # levels of lists and objects in each other; a worker sends four


def split_address(address: str) -> tuple[str, int]:
    """"host:port" as (host, port); hosts of IPv6 are in brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def join_address(host: str, port: int) -> str:
    """The inverse of `split_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_address(value: object) -> bool:
    """Whether a value is such a text."""
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    in_brackets = re.fullmatch(r"\[[0-9A-Fa-f:.]+(%[\w.-]+)?\]", host)
    return bool(in_brackets or re.fullmatch(r"[^][:/\s]+", host)) and port.isascii() and port.isdecimal() \
        and 0 < int(port) < 65536


def bind(port: int, *, reuse: bool = True) -> socket.socket:
    """A socket on a port of all addresses of the machine, those of IPv6 included, as TensorFlow's server will be.

    Args:
        port: The port; 0 for any that is free.
        reuse: Whether the port may be in the state in which an earlier job left it.

    Raises:
        OSError: if the port can't be had.
    """
    families = [socket.AF_INET6, socket.AF_INET] if socket.has_dualstack_ipv6() else [socket.AF_INET]
    for family in families:
        server = socket.socket(family)
        try:
            if reuse:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            server.bind(("", port))
            return server
        except OSError as error:
            server.close()
            # Where IPv6 is switched off, its sockets can be made and not bound.
            if family == families[-1] or error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    raise AssertionError("the last family returns or raises")


def read_line(chief: socket.socket, longest: int) -> bytes:
    """Reads a line that begins with the greeting, of so many bytes at most; b"" or a part of it if it doesn't come."""
    data = bytearray()
    while not data.endswith(b"\n") and len(data) < longest:
        part = chief.recv(2**16)
        data += part
        if not part or not data.startswith(GREETING[:len(data)]):
            break  # the connection ended, or the server is another program's
    return bytes(data)


def line_of(value: Any, request: bytes = b"") -> bytes:
    """The line that says a value; of an answer, `request` is the line that it answers."""
    content = json.dumps(value).encode()
    signature = _signature(request + content)
    return GREETING + (signature + b" " if signature else b"") + content + b"\n"


def _signature(content: bytes) -> bytes:
    """The HMAC of some bytes in hexadecimal, or b"" where no token is set."""
    token = os.environ.get(TOKEN, "")
    return hmac.new(token.encode(), content, hashlib.sha256).hexdigest().encode() if token else b""


def parse(line: bytes, request: bytes = b"", check: bool = True) -> Any:
    """The JSON value of a line; None if the line doesn't follow the protocol, or isn't signed as it must be."""
    if not line.startswith(GREETING) or not line.endswith(b"\n"):
        return None
    content = line[len(GREETING):-1]
    signature, space, rest = content.partition(b" ")
    is_signed = bool(space) and len(signature) == hashlib.sha256().digest_size * 2 and signature.isalnum()
    signature, content = (signature, rest) if is_signed else (b"", content)
    if check and not hmac.compare_digest(signature, _signature(request + content)):
        return None
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(content)
        return value if _is_shallow(value, _DEEPEST) else None
    return None


def _is_shallow(value: Any, levels: int) -> bool:
    """Whether lists and objects are nested in at most so many levels: what is deeper, JSON can read and not write."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_is_shallow(part, levels - 1) for part in inner)
