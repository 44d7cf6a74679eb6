"""The name that a client expects its server's certificate to be valid for."""

from __future__ import annotations

from typing import Final

import idna

# RFC 1035, section 2.3.4, without the length bytes and the root.
_LONGEST_LABEL: Final = 63
_LONGEST_NAME: Final = 253


def server_name(host: str | bytes | bytearray | None) -> str | None:
    """The name in ``host`` as SNI sends it and as certificates have it.

    A trailing dot, which marks an absolute name in DNS, is not part of it (RFC 6066, section 3),
    and neither is the zone of an IPv6 address, which has a meaning on this machine only (RFC 4007).
    A name that is not ASCII is encoded by IDNA 2008, as Trio encodes the name that it looks up.
    Python itself would use IDNA 2003, and might check for another host (bpo-17305).

    Args:
        host: a name or an address; ``None`` if there is none.

    Returns:
        The name, or ``None`` if ``host`` is ``None``.

    Raises:
        TypeError: if ``host`` is neither a string nor bytes.
        ValueError: if no certificate can be valid for ``host``.
    """
    if host is None:
        return None
    if isinstance(host, str):
        name = host
    elif isinstance(host, (bytes, bytearray)):
        if not host.isascii():
            raise ValueError(f"server name {bytes(host)!r}: bytes must be ASCII; give a string")
        name = host.decode()
    else:
        raise TypeError(f"expected a server name, str or bytes, got {type(host).__name__}")
    address, _, _ = name.partition("%")
    if _is_ipv6(address):
        return address
    if not name.isascii():
        name = _encode(name)
    name = name.removesuffix(".")
    _check(name, host)
    return name


def _is_ipv6(address: str) -> bool:
    if ":" not in address:
        return False
    import ipaddress  # noqa: PLC0415 - see tests/test_layers.py

    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return True


def _encode(name: str) -> str:
    try:
        # It maps other full stops to dots, too.
        labels = idna.uts46_remap(name, std3_rules=False).split(".")
    except idna.IDNAError as exc:
        raise ValueError(f"server name {name!r}: {exc}") from exc
    return ".".join(_encode_label(label, name) for label in labels)


def _encode_label(label: str, name: str) -> str:
    if not label:
        return label
    try:
        return idna.alabel(label).decode()
    except idna.IDNAError as exc:
        raise ValueError(f"server name {name!r}: label {label!r}: {exc}") from exc


def _check(name: str, host: object) -> None:
    """Raise ValueError if OpenSSL would not take ``name``, or the idna codec would not."""
    if not name:
        raise ValueError(f"server name {host!r} is empty")
    if "\0" in name:
        raise ValueError(f"server name {host!r} contains a null byte")
    for label in name.split("."):
        if not label:
            raise ValueError(f"server name {host!r} has an empty label")
        if len(label) > _LONGEST_LABEL:
            raise ValueError(
                f"server name {host!r}: label {label!r} is longer than {_LONGEST_LABEL} characters"
            )
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"server name {host!r} is longer than {_LONGEST_NAME} characters")
