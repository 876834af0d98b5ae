"""Logs that people and machines can read, and that hold no secret."""
