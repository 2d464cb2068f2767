"""Rule `ip`: addresses of machines, IPv4 and IPv6; not versions, sections, networks or masks."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import ClassVar

from tuneloop.guard.borders import BEGUN, RIGHT, before
from tuneloop.guard.rules import Draw, Rule, Span, Strength

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_V4 = re.compile(
    rf"[0-9]{BEGUN}(?<![0-9A-Za-z]\..)(?<!\+.)[0-9]{{0,2}}\.(?:{_OCTET}\.){{2}}{_OCTET}{RIGHT}(?!\.[0-9]|/[0-9]|-[A-Za-z])"
)
_V6 = re.compile(r"[0-9A-Fa-f:](?<![0-9A-Za-z:.].)[0-9A-Fa-f:]{1,36}:[0-9A-Fa-f]{1,4}(?![0-9A-Za-z:]|\.[0-9])")
_VERSION = re.compile(
    r"(?:[A-Za-z]/|版本号?|版|第|章节?|节|条|(?<![a-z])(?:versions?|ver|v|release|build|section|chapter|clause|article))"
    r"[\s.:：=是为]{0,3}$",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"(?:(?<![a-z])(?:ip|ipv4|host|server|dns|gateway|ping|address)|地址|网关|主机|服务器)[^0-9。\n]{0,12}$",
    re.IGNORECASE,
)
_EXAMPLES_V4 = tuple(map(ipaddress.IPv4Network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")))  # RFC 5737
_EXAMPLES = (*_EXAMPLES_V4, ipaddress.IPv6Network("2001:db8::/32"))  # RFC 3849


class Ip(Rule):
    """Addresses of machines, those of private networks included. Hints only: ranges reserved for documentation.

    Four single digits such as 1.2.3.4 are an address only after a word such as `IP` or 地址.
    """

    DIGITS: ClassVar[str | None] = r"\.[0-9]{1,3}\.[0-9]|[0-9A-Fa-f]{0,3}:[0-9A-Fa-f]{0,4}:"

    def find(self, text: str) -> Iterable[Span]:
        for match in _V4.finditer(text):
            left = before(text, match.start())
            if not _VERSION.search(left) and (len(match[0]) > 7 or _NAMED.search(left)):
                yield from _spans(match)
        for match in _V6.finditer(text):
            groups = [group for group in match[0].split(":") if group]
            telling = len(groups) >= 4 or any(character.isdigit() for character in groups[0])
            if telling and max(map(len, groups)) >= 3:  # not a::b of C++, [1::2] of Python, a MAC address
                yield from _spans(match)

    def surrogate(self, text: str, draw: Draw) -> str:
        if ":" not in text:
            return str(draw.random.choice(_EXAMPLES_V4)[draw.random.randint(1, 254)])
        groups = [format(draw.random.randint(0x1000, 0xFFFF), "x") for _ in range(6)]
        return ":".join(["2001", "db8", *groups])


def _spans(match: re.Match[str]) -> Iterable[Span]:
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return
    if address.is_loopback or address.is_unspecified or address.is_multicast or match[0].startswith(("0.", "255.")):
        return
    strength: Strength = "weak" if any(address in network for network in _EXAMPLES) else "strong"
    yield Span(match.start(), match.end(), strength)
