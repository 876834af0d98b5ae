"""Questions to whoever sits at the terminal, asked while something else goes on: a thread reads, the loop goes on."""

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable

import click

MAX_ANSWER = 1024
"""Bytes of a line that are kept."""
_PIECE = 4096


class Lines:
    """The lines of stdin as they come, for the loop that it is made on.

    The thread reads the descriptor itself: one that sleeps in Python's own buffered reading, as nobody answers, could
    not be left behind when the command ends.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[str] = asyncio.Queue()
        self._reader: threading.Thread | None = None
        self._ended = False

    async def ask(self, question: str) -> str:
        """The next line, without its end and outer white space; "" where stdin has ended.

        What was typed on a terminal before the question was there is no answer to it.
        """
        if sys.stdin.isatty():
            while not self._lines.empty():
                self._lines.get_nowait()
        if question:
            click.echo(question, nl=False, err=True)
        if self._reader is None:
            self._reader = threading.Thread(target=self._read, args=[sys.stdin.fileno()], name="stdin", daemon=True)
            self._reader.start()
        if self._ended and self._lines.empty():
            return ""
        return await self._lines.get()

    async def agrees(self, question: str) -> bool:
        """Whether the answer is yes; no answer is none, nor is what was typed before anything was asked."""
        if self._reader is None and sys.stdin.isatty():
            with contextlib.suppress(ImportError):  # Windows
                import termios

                termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
        return (await self.ask(f"{question} [y/N] ")).lower() in ("y", "yes")

    def _read(self, descriptor: int) -> None:
        held = b""
        while piece := os.read(descriptor, _PIECE):
            *lines, held = (held + piece).split(b"\n")
            for line in lines:
                self._say(self._put, line)
            held = held[:MAX_ANSWER]
        self._say(self._end, held)

    def _say(self, what: Callable[[bytes], None], line: bytes) -> None:
        try:
            self._loop.call_soon_threadsafe(what, line)
        except RuntimeError:  # the command has ended
            return

    def _put(self, line: bytes) -> None:
        self._lines.put_nowait(line[:MAX_ANSWER].decode("utf-8", "replace").strip())

    def _end(self, line: bytes) -> None:
        self._ended = True
        self._put(line)
