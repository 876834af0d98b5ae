"""Who follows the messages of one session while it is live: the command line, a recording."""

import logging
from collections.abc import Callable

logger = logging.getLogger(__name__)

Observer = Callable[[dict[str, object]], None]
"""Is given one JSON object for each message: `direction` ("in" from the client, "out" to it), `kind`, `plugin`,
`method`, `bytes` (None where it is not known). Never what the message says: apps send passwords."""

Recorder = Callable[[dict[str, object], object], None]
"""As an Observer, and is given what the message says as well: parameters as JSON, bytes of a request with a route,
`{"params": ..., "success": ...}` of an answer, `{"params": ..., "error": TEXT}` of a refusal; None for nothing."""


class Followers:
    """Of one session. `changed` is called when somebody begins: what was kept to spare steps would not be told of."""

    __slots__ = ("_changed", "_session", "all", "writing")

    def __init__(self, session: str, changed: Callable[[], object]) -> None:
        self._session = session
        self._changed = changed
        self.all: list[Recorder] = []
        """Empty nearly always: whoever has a message to tell of looks here first."""
        self.writing: list[Recorder] = []
        """Those of them who write down what is said."""

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Call `observer` for each message from now on. Gives a function that ends it; the session's end does too."""
        return self._add(lambda message, content: observer(message))

    def record(self, recorder: Recorder) -> Callable[[], None]:
        """As `observe`, for who writes down what is said."""
        self.writing.append(recorder)
        return self._add(recorder)

    def _add(self, recorder: Recorder) -> Callable[[], None]:
        self.all.append(recorder)
        self._changed()

        def stop() -> None:
            self._remove(recorder)

        return stop

    def _remove(self, recorder: Recorder) -> None:
        for some in (self.all, self.writing):
            if recorder in some:
                some.remove(recorder)

    def tell(self, direction: str, kind: str, plugin: str, method: str, size: int | None, content: object) -> None:
        """One message, for all. Whoever fails is told of no other."""
        message: dict[str, object] = {"client": self._session, "direction": direction, "kind": kind}
        message |= {"plugin": plugin, "method": method, "bytes": size}
        for recorder in tuple(self.all):
            try:
                recorder(message, content)
            except Exception:
                logger.exception("whoever follows %s failed, and follows it no more", self._session)
                self._remove(recorder)

    def close(self) -> None:
        """The session has ended."""
        self.all.clear()
        self.writing.clear()
