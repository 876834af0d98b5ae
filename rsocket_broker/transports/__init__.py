"""Bytes in and out over TCP, TLS, WebSocket, Unix sockets and memory; and the HTTP that WebSockets begin with."""
