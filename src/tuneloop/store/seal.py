"""What only the owner of the secret can make: signed answer ids, pseudonyms, hashes of keys and of the audit log."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import tempfile
from pathlib import Path
from typing import Literal

from tuneloop.core.errors import StoreError

_BYTES = 32
_SIGNED = ".s1-"
"""Between an answer's id and its seal; the number is the version of how it is made."""
_LONGEST = 300

Purpose = Literal["answer", "user", "key", "audit", "store", "session"]


class Seal:
    """HMAC-SHA-256 with a key of its own for each purpose, all made from one secret of at least 32 bytes.

    No slow hash is needed for keys: nobody guesses one of 2^256 random ones. The secret keeps whoever can write into
    the database, but has not the secret, from adding a key or an entry of his own.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < _BYTES:
            raise StoreError(f"a secret of {len(secret)} bytes is too short: {_BYTES} are needed; seal.load makes one")
        self._secret = bytes(secret)

    def __repr__(self) -> str:
        return "Seal(…)"

    def mac(self, purpose: Purpose, text: str) -> str:
        """64 hexadecimal digits."""
        key = hmac.digest(self._secret, f"tuneloop store 1 {purpose}".encode(), hashlib.sha256)
        return hmac.digest(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()

    def matches(self, mac: str, purpose: Purpose, text: str) -> bool:
        """Whether `mac` is that of a text, in constant time."""
        return hmac.compare_digest(mac.encode("utf-8", "surrogatepass"), self.mac(purpose, text).encode())

    def pseudonym(self, user: str) -> str:
        """What stands for a user: the same for the same name, and without the secret no name can be tried."""
        return f"u1-{self.mac('user', user)[:32]}"

    def sign(self, text: str, purpose: Purpose = "answer") -> str:
        """An id that clients may hold: they cannot make one for an answer (a session) that they did not get."""
        return f"{text}{_SIGNED}{self.mac(purpose, text)[:32]}"

    def check(self, signed: str, purpose: Purpose = "answer") -> str | None:
        """What `sign` was given; None for a forged one, and for those of servers with another secret."""
        if len(signed) > _LONGEST:
            return None
        text = signed.rpartition(_SIGNED)[0]
        return text if text and hmac.compare_digest(_bytes(self.sign(text, purpose)), _bytes(signed)) else None


def load(path: Path) -> bytes:
    """The secret of a file, which is made (readable by its owner alone) where there is none. Raises StoreError."""
    if not path.exists():
        _make(path)
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise StoreError(f"{path}: others may read this secret; `chmod 600 {path}`, and make a new one if they did")
    try:
        secret = bytes.fromhex(path.read_text("ascii"))
    except ValueError:
        secret = b""
    if len(secret) < _BYTES:
        raise StoreError(f"{path}: no secret ({_BYTES} bytes or more as hexadecimal digits); take it from your backup")
    return secret


def _make(path: Path) -> None:
    """Writes a new secret as a whole or not at all; of several processes at once, one wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(name, path)
    except FileExistsError:
        return
    finally:
        Path(name).unlink()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
