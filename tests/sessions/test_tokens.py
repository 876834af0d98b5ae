"""Tokens: nobody guesses them, nothing of them is kept, and each is for one channel."""

import pytest

from rsocket_broker.sessions.tokens import (
    MAX_TOKEN,
    PREFIX,
    TOKEN_BYTES,
    new_id,
    new_key,
    new_token,
    token_digest,
)
from rsocket_broker.transports.base import Channel


def test_no_token_comes_twice_and_each_is_marked() -> None:
    tokens = {new_token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert all(token.startswith(PREFIX) and len(token) >= len(PREFIX) + TOKEN_BYTES * 4 // 3 for token in tokens)
    assert len({new_id() for _ in range(1000)}) == 1000


@pytest.mark.row("A-33")
def test_a_digest_is_of_one_token_on_one_channel_under_one_key() -> None:
    key, token = new_key(), new_token().encode()
    digest = token_digest(key, Channel.WS, token)
    assert digest == token_digest(key, Channel.WS, token)
    others = {
        token_digest(key, Channel.TLS, token),
        token_digest(key, Channel.WSS, token),
        token_digest(new_key(), Channel.WS, token),
        token_digest(key, Channel.WS, token + b"x"),
        token_digest(key, Channel.WS, b""),
    }
    assert digest not in others
    assert len(others) == 5
    assert token not in digest


def test_no_channel_and_token_run_into_each_other() -> None:
    key = new_key()
    assert token_digest(key, Channel.WS, b"s" + b"x" * 20) != token_digest(key, Channel.WSS, b"x" * 20)


def test_a_token_without_end_is_not_read_to_its_end() -> None:
    key = new_key()
    assert token_digest(key, Channel.WS, b"x" * MAX_TOKEN) == token_digest(key, Channel.WS, b"x" * 10 * MAX_TOKEN)
