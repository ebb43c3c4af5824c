"""Passwords at rest."""

from kaa_gateway.identity import passwords


def test_passwords() -> None:
    hash_ = passwords.hashed(b"secret")
    assert hash_ != passwords.hashed(b"secret"), "each has a salt of its own"
    assert passwords.matches(b"secret", hash_)
    assert not passwords.matches(b"Secret", hash_)
    for text in ("", "secret", "scrypt:1", hash_[:-4] + "!", hash_.replace("16384", "9999999")):
        assert not passwords.is_hash(text)
