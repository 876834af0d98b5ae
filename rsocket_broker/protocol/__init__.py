"""RSocket 1.0 without I/O: bytes and time in, events and bytes out."""
