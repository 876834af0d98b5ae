"""Programs in other languages that answer each line with a line."""

import subprocess

PATIENCE = 20.0


class Lines:
    """One such program, while it runs."""

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, *words: object) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        assert answer, "the program has ended"
        return answer

    def close(self) -> None:
        self._process.communicate(timeout=PATIENCE)
