"""Tests run without network: a guard below every library that might try (installed by tests/conftest.py)."""

import ipaddress
import socket


class NetworkRefused(RuntimeError):
    """A test tried to leave this machine."""


def refuse_network(event: str, arguments: tuple) -> None:
    """Audit hook (`sys.addaudithook`): raise NetworkRefused on connections and look-ups that are not local."""
    if event in {"socket.connect", "socket.sendto"}:
        sock, address = arguments[0], arguments[1]
        if sock.family in {socket.AF_INET, socket.AF_INET6} and not is_loopback(address[0]):
            raise NetworkRefused(f"this test connects to {address[0]}:{address[1]}; tests run without network")
    elif event == "socket.getaddrinfo" and not is_loopback(arguments[0]):
        raise NetworkRefused(f"this test looks up {arguments[0]!r}; tests run without network")


def is_loopback(host: str | bytes | None) -> bool:
    """True for the names and addresses of this machine itself."""
    host = host.decode() if isinstance(host, bytes) else host
    if host in {None, "", "localhost", "testserver"}:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
