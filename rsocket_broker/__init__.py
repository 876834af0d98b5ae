"""An RSocket broker with mutual TLS: identity for apps, and one secure, two-way line to Python code."""

__version__ = "0.1.0"
