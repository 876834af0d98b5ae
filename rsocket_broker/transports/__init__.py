"""Bytes in and out over TCP, TLS, Unix sockets and memory; nothing else."""
