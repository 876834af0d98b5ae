"""Shared fixtures. Each one is a real part: a folder, a socket, a certificate authority."""
