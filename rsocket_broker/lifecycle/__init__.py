"""What happens to identities while the broker runs: renewal, rotation, revocation, expiry."""
