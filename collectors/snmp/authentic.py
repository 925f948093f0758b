"""Whether a message of version 3 comes from who has the keys (RFC 3414 section 3.2, steps 6 to 8; RFC 7860).

gufo-snmp 0.13 signs what it sends and then believes every answer of the right request-id, whatever its tag
and its level. So answers are held against the key before gufo sees them:

- A Report in plain text passes: it is how an agent tells its engine id and why it refuses (RFC 3412 section
  7.2). It brings no values.
- Everything else must be of the user's own level, and its tag must be that of the key, made for the engine id
  that the message names (RFC 3414 section 2.6).

Pure; whatever cannot be read is not authentic.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from collectors.inventory import Credentials
from collectors.snmp.wire import Secured, secured

_AUTHENTIC, _PRIVATE = 1, 2  # msgFlags (RFC 3412 section 6.4)
_REPORT = 0xA8
# Protocol → hash, octets of its tag (RFC 3414 sections 6 and 7, RFC 7860 section 4.1).
_PROTOCOLS = {
    "MD5": ("md5", 12),
    "SHA": ("sha1", 12),
    "SHA224": ("sha224", 16),
    "SHA256": ("sha256", 24),
    "SHA384": ("sha384", 32),
    "SHA512": ("sha512", 48),
}
_MOST_ENGINES = 4  # a device has one; more are somebody's try


@dataclass
class Seal:
    """What answers to one user must bear."""

    protocol: str
    master_key: bytes = field(repr=False)
    private: bool
    _keys: dict[bytes, bytes] = field(default_factory=dict, repr=False)  # engine id → its key

    @classmethod
    def of(cls, credentials: Credentials, master_key: bytes | None) -> Seal | None:
        """The seal of a credential set; None where nothing is signed."""
        if credentials.version != "3" or credentials.auth_protocol is None or master_key is None:
            return None
        return cls(credentials.auth_protocol, master_key, credentials.privacy_protocol is not None)

    def fits(self, message: bytes) -> bool:
        """Whether a message may be believed."""
        parts = secured(message)
        if parts is None:
            return False
        if not parts.flags & _PRIVATE and parts.pdu == _REPORT:
            return True
        needed = _AUTHENTIC | (_PRIVATE if self.private else 0)
        return parts.flags & needed == needed and self._is_signed(message, parts)

    def _is_signed(self, message: bytes, parts: Secured) -> bool:
        algorithm, octets = _PROTOCOLS[self.protocol]
        start, end = parts.tag_at, parts.tag_at + parts.tag_octets
        if parts.tag_octets != octets:
            return False
        unsigned = message[:start] + bytes(octets) + message[end:]
        tag = hmac.digest(self._key(parts.engine_id), unsigned, algorithm)[:octets]
        return hmac.compare_digest(tag, message[start:end])

    def _key(self, engine_id: bytes) -> bytes:
        if engine_id not in self._keys:
            if len(self._keys) >= _MOST_ENGINES:
                self._keys.clear()
            text = self.master_key + engine_id + self.master_key
            self._keys[engine_id] = hashlib.new(_PROTOCOLS[self.protocol][0], text).digest()
        return self._keys[engine_id]
