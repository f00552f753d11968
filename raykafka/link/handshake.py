"""The opening of a link: a mutual HMAC over the cluster's secret (rule 27), without a socket.

Three frames. The server sends the format and a nonce; the client answers with a nonce of its own, a proof and its
identity; the server answers with a proof and its identity. A proof is HMAC-SHA256 over format, side, both nonces and
the identity that is shown, so that neither can be replayed nor sent back to the one who made it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from typing import Any

from raykafka.errors import LinkError

FORMAT = b"RKL1"
_NONCE_BYTES = 32
_PROOF_BYTES = 32


class Handshake:
    """One side of it: send ``greeting`` if there is one, then what ``receive`` answers to each frame, until ``peer`` is
    known. ``identity`` is what this side shows."""

    def __init__(self, secret: bytes, identity: dict[str, Any], *, server_side: bool) -> None:
        self._secret = secret
        self._identity = json.dumps(identity).encode()
        self._server_side = server_side
        self._nonce = os.urandom(_NONCE_BYTES)
        self._peer_nonce = b""
        self.peer: dict[str, Any] | None = None

    @property
    def greeting(self) -> bytes:
        """What this side sends before it has received anything: nothing, as the client."""
        return FORMAT + self._nonce if self._server_side else b""

    def receive(self, frame: bytes) -> bytes:
        """What is to be sent after ``frame``, if anything. Raises LinkError when the other side lacks the secret or
        speaks another format, ValueError for an identity that is no JSON."""
        if self._server_side:
            return self._prove_as_server(frame)
        return self._check_server(frame) if self._peer_nonce else self._prove_as_client(frame)

    def _prove_as_server(self, frame: bytes) -> bytes:
        end = _NONCE_BYTES + _PROOF_BYTES
        self._peer_nonce, proof, identity = frame[:_NONCE_BYTES], frame[_NONCE_BYTES:end], frame[end:]
        self._check(proof, self._proof(b"client", self._nonce, self._peer_nonce, identity))
        self.peer = json.loads(identity)
        return self._proof(b"server", self._peer_nonce, self._nonce, self._identity) + self._identity

    def _prove_as_client(self, frame: bytes) -> bytes:
        if frame[: len(FORMAT)] != FORMAT or len(frame) != len(FORMAT) + _NONCE_BYTES:
            raise LinkError("the peer speaks another link format")
        self._peer_nonce = frame[len(FORMAT) :]
        return self._nonce + self._proof(b"client", self._peer_nonce, self._nonce, self._identity) + self._identity

    def _check_server(self, frame: bytes) -> bytes:
        proof, identity = frame[:_PROOF_BYTES], frame[_PROOF_BYTES:]
        self._check(proof, self._proof(b"server", self._nonce, self._peer_nonce, identity))
        self.peer = json.loads(identity)
        return b""

    def _proof(self, side: bytes, first: bytes, second: bytes, identity: bytes) -> bytes:
        return hmac.new(self._secret, b"|".join((FORMAT, side, first, second, identity)), hashlib.sha256).digest()

    @staticmethod
    def _check(proof: bytes, expected: bytes) -> None:
        if not hmac.compare_digest(proof, expected):
            raise LinkError("the peer does not hold this cluster's secret")
