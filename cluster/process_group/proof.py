"""How two members of a generation make sure of each other, on a fresh connection between them.

Three messages of fixed size: the connecting member says who it is, whom it looks for and in which generation; the other
proves that it knows the run's key; the first proves the same. Every proof covers the generation, both names and both
ends' random numbers, so that none serves another generation, another pair or another time. The keys of the
connection's frames follow from the same text: whoever only passes the three messages on can send no frame.
"""

import hashlib
import hmac
import secrets
import struct
from dataclasses import dataclass

_MAGIC = b"PHXGROUP"
_FIELDS = struct.Struct("<8sQ32s32s32s")
_NONCE_BYTES = 32
_PROOF_BYTES = 32

HELLO_BYTES = _FIELDS.size
ANSWER_BYTES = _NONCE_BYTES + _PROOF_BYTES
PROOF_BYTES = _PROOF_BYTES


@dataclass(frozen=True)
class Hello:
    """What the connecting member says first.

    Attributes:
        generation: that it wants to form.
        sender: digest of its worker's name.
        receiver: digest of the name of the worker that it looks for.
        nonce: random bytes.
    """

    generation: int
    sender: bytes
    receiver: bytes
    nonce: bytes

    @classmethod
    def to(cls, receiver: str, sender: str, generation: int) -> "Hello":
        """A new one."""
        return cls(generation, name_digest(sender), name_digest(receiver), secrets.token_bytes(_NONCE_BYTES))

    @classmethod
    def unpack(cls, data: bytes) -> "Hello | None":
        """Reads `HELLO_BYTES` bytes; None if they are none."""
        magic, *fields = _FIELDS.unpack(data)
        return cls(*fields) if magic == _MAGIC else None

    def pack(self) -> bytes:
        """Its bytes."""
        return _FIELDS.pack(_MAGIC, self.generation, self.sender, self.receiver, self.nonce)


class Proof:
    """What both ends compute of one connection.

    Args:
        key: the run's, which both know.
        hello: the connecting member's.
        nonce: the accepting member's random bytes.
    """

    def __init__(self, key: bytes, hello: Hello, nonce: bytes) -> None:
        self._key = key
        self._text = hello.pack() + nonce
        self._nonce = nonce

    @classmethod
    def new(cls, key: bytes, hello: Hello) -> "Proof":
        """The accepting member's."""
        return cls(key, hello, secrets.token_bytes(_NONCE_BYTES))

    @classmethod
    def of_answer(cls, key: bytes, hello: Hello, answer: bytes) -> "Proof | None":
        """The connecting member's, from `ANSWER_BYTES` bytes; None if whoever sent them does not know the key."""
        proof = cls(key, hello, answer[:_NONCE_BYTES])
        return proof if hmac.compare_digest(answer[_NONCE_BYTES:], proof._made("accepting")) else None

    def answer(self) -> bytes:
        """What the accepting member sends."""
        return self._nonce + self._made("accepting")

    def confirmation(self) -> bytes:
        """What the connecting member sends last: `PROOF_BYTES` bytes."""
        return self._made("connecting")

    def is_confirmed(self, confirmation: bytes) -> bool:
        """Whether the connecting member sent this."""
        return hmac.compare_digest(confirmation, self._made("connecting"))

    def frame_keys(self) -> tuple[bytes, bytes]:
        """The keys of the connecting member's and of the accepting member's frames."""
        return self._made("frames of the connecting"), self._made("frames of the accepting")

    def _made(self, role: str) -> bytes:
        return hmac.digest(self._key, role.encode() + b"\0" + self._text, "sha256")


def name_digest(worker: str) -> bytes:
    """A worker's name as 32 bytes."""
    return hashlib.sha256(worker.encode()).digest()
