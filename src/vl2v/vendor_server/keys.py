"""Keys of accounts: made, recognised and compared with the digests in the database."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from enum import StrEnum
from typing import Any

from sqlalchemy import Row

KEY = re.compile(r"vl2v-([0-9a-f]{16})-[A-Za-z0-9_-]{43}")


class KeyFault(StrEnum):
    """The reason why a key is invalid. Only a client with the complete key learns a reason other than the first."""

    UNKNOWN = "unknown"
    REVOKED = "revoked"
    EXPIRED = "expired"
    REPLACED = "replaced by a new one"


def new_key(identity: str) -> str:
    """Return a random key that contains the public id of its account."""
    return f"vl2v-{identity}-{secrets.token_urlsafe(32)}"


def digest(key: str) -> str:
    """Return the SHA-256 of a key, in hexadecimal.

    A slow password hash has no advantage, because a key has 256 random bits and cannot be guessed.
    """
    return hashlib.sha256(key.encode()).hexdigest()


def account_id(key: str) -> str | None:
    """Return the public id of the account in a key; None if this is not the format of a key."""
    match = KEY.fullmatch(key)
    return match[1] if match else None


def fault_of_key(key: str, row: Row[Any] | None, now: float) -> KeyFault | None:
    """Return the reason why a key is invalid, or None if it is valid. Digests are compared in constant time.

    Args:
        row: row of the account that the key names; None if there is no such account.
        now: the time, in seconds since 1970.
    """
    nothing, key_digest = digest("no such account"), digest(key)
    is_key = hmac.compare_digest(row.digest if row is not None else nothing, key_digest)
    was_key = hmac.compare_digest((row.old_digest if row is not None else None) or nothing, key_digest)
    if row is None or not (is_key or was_key):
        return KeyFault.UNKNOWN
    if row.revoked is not None:
        return KeyFault.REVOKED
    if row.expires is not None and row.expires <= now:
        return KeyFault.EXPIRED
    if not is_key and row.old_until <= now:
        return KeyFault.REPLACED
    return None
