"""A port that is kept free for a server which binds it later, with no moment in which another process could take it."""

import errno
import socket

# TensorFlow's server binds with SO_REUSEPORT, and so to a reserved port, only where this is in its environment.
TENSORFLOW_SHARES_PORTS = ("TF_GRPC_REUSE_PORT", "1")


class ReservedPort:
    """Holds a free TCP port of this host until `close`.

    A socket that is bound with SO_REUSEPORT and never listens holds it; such a socket receives nothing. A server of the
    same user that binds with SO_REUSEPORT too shares the port with it; whoever binds without is refused, and the kernel
    gives the port to nobody who asks for any free one. Keep it for as long as the server may have to start again.

    The port is reserved on every address of the host, because TensorFlow's server listens on all of them.

    Attributes:
        host: the address that peers reach this host at, without brackets.
        port: the number.

    >>> with ReservedPort("127.0.0.1") as reserved:
    ...     reserved.address == f"127.0.0.1:{reserved.port}"
    True
    """

    def __init__(self, host: str) -> None:
        """Reserves a port.

        Args:
            host: one of the host's own addresses or names, IPv4 or IPv6.

        Raises:
            ValueError: it is not an address of this host.
            OSError: the host has no free port.
        """
        self.host = host.strip("[]")
        family, place = _resolve(self.host)
        self._socket = _bind_everywhere()
        self.port: int = self._socket.getsockname()[1]
        try:
            _check_own(family, (place[0], self.port, *place[2:]))
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """Host and port, an IPv6 host in brackets: `"10.0.0.1:4711"`, `"[::1]:4711"`."""
        return format_address(self.host, self.port)

    def close(self) -> None:
        """Gives the port back; a second call does nothing. A server that listens on it goes on."""
        self._socket.close()

    def __enter__(self) -> "ReservedPort":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def format_address(host: str, port: int) -> str:
    """Host and port as one text.

    >>> format_address("10.0.0.1", 4711), format_address("::1", 4711)
    ('10.0.0.1:4711', '[::1]:4711')
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(address: str) -> tuple[str, int]:
    """Host, without brackets, and port.

    Raises:
        ValueError: it is not `host:port`.

    >>> split_address("10.0.0.1:4711"), split_address("[::1]:4711")
    (('10.0.0.1', 4711), ('::1', 4711))
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or (":" in host and not host.startswith("[")):
        raise ValueError(f"{address!r} is not an address: write host:port, or [host]:port for IPv6")
    return host.strip("[]"), int(port)


def own_address(towards: str = "192.0.2.1") -> str:
    """The address of this machine that another one sees. Nothing is sent; without a network it is this host's own.

    Args:
        towards: the other's name or address.
    """
    family, place = _resolve(towards)
    with socket.socket(family, socket.SOCK_DGRAM) as unused:
        try:
            unused.connect((place[0], 9, *place[2:]))
        except OSError:
            return socket.gethostbyname(socket.gethostname())
        return unused.getsockname()[0]


def _resolve(host: str) -> tuple[socket.AddressFamily, tuple]:
    try:
        family, *_, place = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ValueError(f"{host} cannot be resolved ({error.strerror}): give one of this host's addresses") from None
    return family, place


def _check_own(family: socket.AddressFamily, place: tuple) -> None:
    """A server could not bind an address of another host, and would say so long after this."""
    with _shared_socket(family) as probe:
        try:
            probe.bind(place)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            raise ValueError(f"{place[0]} is not an address of this host: give one that `ip address` lists") from None


def _bind_everywhere() -> socket.socket:
    """A socket that is bound to a free port of all addresses, of both families where the host has IPv6."""
    try:
        both = _shared_socket(socket.AF_INET6)
    except OSError:  # a kernel without IPv6
        return _bind_any(_shared_socket(socket.AF_INET))
    try:
        both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        return _bind_any(both)
    except OSError as error:
        if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):  # a host with IPv6 switched off
            raise
        return _bind_any(_shared_socket(socket.AF_INET))


def _bind_any(unbound: socket.socket) -> socket.socket:
    try:
        unbound.bind(("", 0))
    except BaseException:
        unbound.close()
        raise
    return unbound


def _shared_socket(family: socket.AddressFamily) -> socket.socket:
    new = socket.socket(family, socket.SOCK_STREAM)
    new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return new
