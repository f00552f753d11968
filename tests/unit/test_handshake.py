"""The handshake of a link without a socket: both sides prove that they hold the secret, or it ends (rule 27)."""

from __future__ import annotations

import pytest

from raykafka.errors import LinkError
from raykafka.link.handshake import FORMAT, Handshake

SECRET = b"s" * 32


def server(secret: bytes = SECRET) -> Handshake:
    return Handshake(secret, {"role": "broker"}, server_side=True)


def client(secret: bytes = SECRET) -> Handshake:
    return Handshake(secret, {"role": "replica", "pid": 7}, server_side=False)


def test_three_frames_tell_each_side_who_the_other_is() -> None:
    ours, theirs = server(), client()
    assert theirs.greeting == b""
    proof = theirs.receive(ours.greeting)
    assert ours.peer is None and theirs.peer is None
    answer = ours.receive(proof)
    assert ours.peer == {"role": "replica", "pid": 7}
    assert theirs.receive(answer) == b""
    assert theirs.peer == {"role": "broker"}


def test_a_client_without_the_secret_learns_nothing() -> None:
    ours, theirs = server(), client(b"another")
    with pytest.raises(LinkError, match="secret"):
        ours.receive(theirs.receive(ours.greeting))
    assert ours.peer is None


def test_a_server_without_the_secret_is_not_believed() -> None:
    ours, theirs = server(b"another"), client()
    theirs.receive(ours.greeting)
    forged = Handshake(b"another", {"role": "broker"}, server_side=False)
    with pytest.raises(LinkError, match="secret"):
        theirs.receive(forged.receive(ours.greeting)[32:])
    assert theirs.peer is None


def test_a_proof_counts_for_one_connection_and_one_side_only() -> None:
    first, second, theirs = server(), server(), client()
    proof = theirs.receive(first.greeting)
    with pytest.raises(LinkError, match="secret"):
        second.receive(proof)  # replayed
    with pytest.raises(LinkError, match="secret"):
        theirs.receive(proof[32:])  # sent back to the one who made it


def test_an_identity_that_was_changed_on_its_way_is_refused() -> None:
    ours, theirs = server(), client()
    proof = theirs.receive(ours.greeting)
    with pytest.raises(LinkError, match="secret"):
        ours.receive(proof.replace(b"replica", b"control"))


@pytest.mark.parametrize("greeting", [b"", b"RKL0" + bytes(32), FORMAT + bytes(31), b"HTTP/1.1 400 Bad Request"])
def test_another_format_is_refused(greeting: bytes) -> None:
    with pytest.raises(LinkError, match="format"):
        client().receive(greeting)
