"""A memory as a string in an answer, which a later request can send back to this server or to another one with the same key."""

import base64
import hashlib
import hmac
import struct

import torch

from ..errors import InputError

HEADER = struct.Struct("<4s8sQ")  # the version, the owner, tokens read
VERSION = b"smt1"
SIGNATURE = 32


class MemoryField:
    """Writes and reads memories as strings. They are signed: a server only accepts what a server with its key has written.

    Args:
        key: the secret, shared by servers that pass conversations to each other.
        owner: the fingerprint of the student.
        shape: `(K, D)`.
    """

    def __init__(self, key: bytes, owner: str, shape: tuple[int, int]):
        self.key, self.shape = key, tuple(shape)
        self.owner = hashlib.blake2b(owner.encode(), digest_size=8).digest()
        self.size = HEADER.size + 4 * shape[0] * shape[1] + SIGNATURE

    def write(self, memory: torch.Tensor, num_tokens: int) -> str:
        """The string for a memory `(K, D)`, in float32."""
        content = HEADER.pack(VERSION, self.owner, num_tokens) + memory.float().cpu().contiguous().numpy().tobytes()
        return base64.urlsafe_b64encode(content + self._sign(content)).decode()

    def read(self, text: str) -> tuple[torch.Tensor, int]:
        """The memory, and the number of tokens that it has read.

        Raises:
            InputError: for a string that was not written by a server with this key for this student.
        """
        try:
            if len(text) > 2 * self.size:
                raise ValueError
            data = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
        except ValueError as error:
            raise InputError(
                "memory is not a string written by this server: send the one from an earlier answer"
            ) from error
        content, signature = data[:-SIGNATURE], data[-SIGNATURE:]
        if len(data) != self.size or not hmac.compare_digest(signature, self._sign(content)):
            raise InputError("memory was not written by this server, for this model and with its key, or was changed")
        version, owner, num_tokens = HEADER.unpack_from(content)
        if version != VERSION or owner != self.owner:
            raise InputError("memory belongs to another student: send the text again")
        states = torch.frombuffer(bytearray(content[HEADER.size :]), dtype=torch.float32)
        return states.view(self.shape), num_tokens

    def _sign(self, content: bytes) -> bytes:
        return hmac.digest(self.key, content, "sha256")
