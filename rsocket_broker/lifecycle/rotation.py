"""Walks a broker that runs through a rotation of its authority, and has its clients brought along.

A step is a transaction of the authority; what follows it is a round: pairs for the clients of the WebSocket port, which
can only verify what the port presents now, then anchors, then certificates for everybody else. A round goes on whether
or not the operator still looks, and a broker that was stopped in the middle of a rotation begins with one.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from pathlib import Path

import attrs

from rsocket_broker.admin.endpoint import Params, Stream, Verb
from rsocket_broker.authority import Authority
from rsocket_broker.authority.holders import Holder
from rsocket_broker.authority.imported import read_issuer
from rsocket_broker.authority.issue import Issuer
from rsocket_broker.authority.rotation import Phase, Step
from rsocket_broker.errors import Invalid
from rsocket_broker.files import read_private
from rsocket_broker.lifecycle.anchor import AnchorKeeper
from rsocket_broker.lifecycle.contexts import CurrentContexts
from rsocket_broker.lifecycle.spreader import Outcome, Spread, Spreader, Which
from rsocket_broker.lifecycle.standing import describe, named
from rsocket_broker.moments import utc_now
from rsocket_broker.routing.endpoint import SecureEndpoint

PROGRESS_S = 0.2
"""Seconds between two words on the progress of a round: often enough for people, seldom enough for ten thousand."""
LOOK_S = 0.5
"""Seconds between two looks at who is left; more where the look itself takes long."""
LOOK_SHARE = 10
"""A look takes at most one part in so many of the time: with a large inventory it is work."""
STEP_S = 2.0
"""Seconds that a stop waits for a step that is under way: tenths of one, but for somebody who holds the home's lock."""
MAX_FAULTS = 20
"""Clients of a round of which it is told what went wrong; all are counted, and the log has a line for each."""
DROPPED = "its certificate was given up with the CA that signed it"

_log = logging.getLogger(__name__)


@attrs.define(slots=True)
class Tally:
    """What a round has come to so far: one for each of its parts, `what`."""

    what: str
    done: int = 0
    later: int = 0
    failed: int = 0
    faults: list[str] = attrs.field(factory=list)
    clients: set[str] = attrs.field(factory=set)

    def count(self, spread: Spread) -> None:
        self.clients.add(spread.client)
        match spread.outcome:
            case Outcome.DONE:
                self.done += 1
            case Outcome.LATER:
                self.later += 1
            case Outcome.FAILED:
                self.failed += 1
                if len(self.faults) < MAX_FAULTS:
                    self.faults.append(f"{spread.client}: {spread.reason}")

    def describe(self) -> dict[str, object]:
        return {
            "what": self.what,
            "done": self.done,
            "later": self.later,
            "failed": self.failed,
            "faults": list(self.faults),
        }


class Rotator:
    """One per broker, on its loop."""

    def __init__(
        self, authority: Authority, spreader: Spreader, endpoint: SecureEndpoint, contexts: CurrentContexts
    ) -> None:
        self._authority = authority
        self._spreader = spreader
        self._endpoint = endpoint
        self._contexts = contexts
        self._one_at_a_time = asyncio.Lock()
        self._stopped = False
        self._round: asyncio.Task[None] | None = None
        self._tallies: list[Tally] = []
        self._serials: dict[str, int] = {}
        """The certificates of the sessions that were there before the last step, by the ids of those."""
        self._keeper = AnchorKeeper(authority, contexts, now=utc_now)
        self._keeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Takes up a rotation that an earlier broker has begun, and keeps what the ports present young."""
        self._keeping = asyncio.create_task(self._keeper.run(), name="renewal of what is presented")
        self._keeping.add_done_callback(_log_failure)
        if self._authority.phase is not Phase.STEADY:
            _log.info("a rotation of the CA is under way: %s", self._authority.phase.value)
            self._begin_round()

    async def stop(self) -> None:
        """Begins nothing more. What has been begun for a client goes on to its end."""
        self._stopped = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STEP_S), self._one_at_a_time:
                pass  # a step that is under way has come to its end
        await self._end_round()
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])

    def verbs(self) -> Mapping[str, Verb | Stream]:
        """For the admin line. All answer with JSON objects; see `describe` and `take`."""
        without = {"without": list}
        return {
            "rotate.status": Verb(lambda params: self.status()),
            "rotate.prepare": Stream(lambda params: self.take(Step.PREPARE)),
            "rotate.switch": Stream(lambda params: self.take(Step.SWITCH)),
            "rotate.finish": Stream(lambda params: self.take(Step.FINISH, _texts(params)), optional=without),
            "rotate.rollback": Stream(lambda params: self.take(Step.ROLLBACK, _texts(params)), optional=without),
            "rotate.import": Verb(lambda params: self.adopt(params["import"]), {"import": dict}),
            "rotate.auto": Stream(lambda params: self.walk(float(params["patience"])), {"patience": (int, float)}),
        }

    async def status(self) -> dict[str, object]:
        """Where the home stands, who is left, and how far the last round has come."""
        self._note_live()
        described = await asyncio.to_thread(describe, self._authority)
        informed = await self._spreader.informed()
        return {
            **described,
            "bundle": {"have": informed.have, "known": informed.known},
            "sessions": self._sessions(),
            "round": self._said(),
        }

    async def take(self, step: Step, without: Collection[str] = ()) -> AsyncGenerator[dict[str, object], None]:
        """Take one step, then say how the round after it goes, until that is over. Closing this ends nothing.

        Yields `{"event": "phase", ...}` with what `describe` says, then `{"event": "round", "parts": [...],
        "over": bool}` as they change. Raises AuthorityError and HomeError when the step is refused.
        """
        await self._change(lambda: self._step(step, without))
        yield await self._phase(step)
        async for said in self._follow():
            yield said

    async def adopt(self, files: Mapping[str, object]) -> dict[str, object]:
        """Prepare a rotation to an operator's own CA, and begin to bring the clients along. `files` are the paths of
        its `certificate` and `key`, and of `chain` and `key_passphrase_file` where there are such.

        Answers as `describe`. Raises AuthorityError and HomeError when the CA cannot be ours.
        """
        await self._change(lambda: self._adopt(files))
        return await asyncio.to_thread(describe, self._authority)

    async def walk(self, patience: float) -> AsyncGenerator[dict[str, object], None]:
        """The whole rotation, from whatever phase the home is in. After the switch, `patience` is how many seconds to
        wait for those who are left; then it stops, and can be gone on with.

        Yields what `take` does, and `{"event": "left", "count": N, "clients": [...]}` while somebody is waited for.
        """
        if self._authority.phase is Phase.STEADY:
            async for said in self.take(Step.PREPARE):
                yield said
        else:
            yield await self._phase(None)
            async for said in self._follow():
                yield said
        if self._authority.phase is Phase.PREPARED:
            async for said in self.take(Step.SWITCH):
                yield said
        async for said in self._wait_for_all(time.monotonic() + patience):
            yield said
        if self._authority.phase is Phase.SWITCHED and not await self._left():
            async for said in self.take(Step.FINISH):
                yield said

    # --- steps -------------------------------------------------------------------------------------------------------

    async def _change(self, work: Callable[[], Awaitable[None]]) -> None:
        """What is decided has all its consequences, though nobody waits for them any more: a command that is ended in
        the middle would leave those who were given up with their sessions, and the others without a round."""
        await asyncio.shield(asyncio.ensure_future(self._change_alone(work)))

    async def _change_alone(self, work: Callable[[], Awaitable[None]]) -> None:
        async with self._one_at_a_time:
            before, interrupted = self._authority.rotation, await self._end_round()
            self._serials = {each.id: each.identity.serial for each in self._endpoint.sessions}
            try:
                await work()
            finally:
                if interrupted or self._authority.rotation != before:
                    self._begin_round()

    async def _adopt(self, files: Mapping[str, object]) -> None:
        issuer = await asyncio.to_thread(_read_ca, files)
        await asyncio.to_thread(self._authority.prepare, issuer)
        await asyncio.to_thread(self._contexts.prepare)

    async def _step(self, step: Step, without: Collection[str]) -> None:
        self._note_live()
        authority = self._authority
        match step:
            case Step.PREPARE:
                await asyncio.to_thread(authority.prepare)
            case Step.SWITCH:
                await asyncio.to_thread(authority.switch)
            case Step.FINISH | Step.ROLLBACK:
                await self._drop(step, without)
        await asyncio.to_thread(self._contexts.prepare)

    async def _drop(self, step: Step, without: Collection[str]) -> None:
        """Those who were given up by name lose their sessions; whoever has moved on keeps the one that it has."""
        authority, dropped = self._authority, self._authority.rotation.dropped_by(step)
        holders = [] if dropped is None else await asyncio.to_thread(authority.holders, dropped)
        given_up = named(holders, without)
        drop = authority.finish if step is Step.FINISH else authority.rollback
        try:
            await asyncio.to_thread(drop, given_up)
        finally:
            if dropped is not None and not authority.rotation.accepts(dropped):
                self._end_sessions(
                    {number for each in holders if each.principal in given_up for number in each.serials}
                )

    def _end_sessions(self, serials: Collection[int]) -> None:
        for session in [one for one in self._endpoint.sessions if one.identity.serial in serials]:
            if not session.is_child:
                self._endpoint.children.end(session.node.id, DROPPED)
        self._endpoint.forget(lambda identity: identity.serial in serials)

    def _note_live(self) -> None:
        """Whoever is connected had the certificate of its session when it was heard last: one that has crashed, and
        come back with another, is still there for a while."""
        for session in self._endpoint.sessions:
            if session.identity.principal.certified:
                self._authority.arrived(session.identity.serial, session.connection.silence)

    # --- rounds ------------------------------------------------------------------------------------------------------

    def _begin_round(self) -> None:
        if self._stopped:
            return
        self._tallies = []
        self._round = asyncio.create_task(self._spread(), name="round of a rotation")
        self._round.add_done_callback(_log_failure)

    async def _end_round(self) -> bool:
        """Whether one was under way."""
        if self._round is None or self._round.done():
            return False
        self._round.cancel()
        await asyncio.wait([self._round])
        return True

    async def _spread(self) -> None:
        await self._part("pairs for the WebSocket port", self._spreader.spread_pairs(Which.WEB))
        await self._part("anchors", self._spreader.spread_trust())
        certificates = await self._part("certificates", self._spreader.spread_pairs(Which.ALL))
        certificates.done += len(self._moved() - certificates.clients)

    def _moved(self) -> set[str]:
        """Clients whose sessions have a certificate of the generation that signs now, and had another before the step.
        A session that had just come is seen to on its own, and may have been before the round came to it."""
        return {
            str(session.identity.principal)
            for session in self._endpoint.sessions
            if self._serials.get(session.id, session.identity.serial) != session.identity.serial
            and session.identity.generation == self._authority.generation
        }

    async def _part(self, what: str, spreads: AsyncGenerator[Spread, None]) -> Tally:
        tally = Tally(what)
        self._tallies.append(tally)
        async with contextlib.aclosing(spreads):
            async for spread in spreads:
                tally.count(spread)
                if spread.outcome is Outcome.FAILED:
                    _log.warning("%s: %s was not brought along: %s", what, spread.client, spread.reason)
        return tally

    async def _follow(self) -> AsyncGenerator[dict[str, object], None]:
        """The round as it goes."""
        task, last = self._round, None
        while task is not None:
            await asyncio.wait([task], timeout=PROGRESS_S)
            said = self._said()
            if said != last:
                yield {"event": "round", **said}
                last = said
            if task.done():
                return

    def _said(self) -> dict[str, object]:
        over = self._round is None or self._round.done()
        return {"parts": [each.describe() for each in self._tallies], "over": over}

    # --- who is left -------------------------------------------------------------------------------------------------

    async def _left(self) -> list[Holder]:
        rotation = self._authority.rotation
        if rotation.previous is None:
            return []
        self._note_live()
        return await asyncio.to_thread(self._authority.holders, rotation.previous)

    async def _wait_for_all(self, deadline: float) -> AsyncGenerator[dict[str, object], None]:
        last: list[str] | None = None
        while True:
            begun = time.monotonic()
            left = [str(each.principal) for each in await self._left()]
            if left != last and (left or last):
                yield {"event": "left", "count": len(left), "clients": left}
                last = left
            if not left or self._authority.phase is not Phase.SWITCHED:
                return
            pause = max(LOOK_S, LOOK_SHARE * (time.monotonic() - begun))
            if time.monotonic() + pause >= deadline:
                return
            await asyncio.sleep(pause)

    async def _phase(self, step: Step | None) -> dict[str, object]:
        described = await asyncio.to_thread(describe, self._authority)
        return {"event": "phase", "step": None if step is None else step.value, **described}

    def _sessions(self) -> dict[str, int]:
        """Live sessions by the generation of their certificate."""
        found: dict[str, int] = {}
        for session in self._endpoint.sessions:
            if not session.is_child and session.identity.principal.certified:
                number = str(session.identity.generation)
                found[number] = found.get(number, 0) + 1
        return found


def _texts(params: Params) -> list[str]:
    return [text for text in params.get("without", ()) if isinstance(text, str)]


def _read_ca(files: Mapping[str, object]) -> Issuer:
    given = {name: Path(path) for name, path in files.items() if isinstance(path, str)}
    if not {"certificate", "key"} <= given.keys() <= {"certificate", "key", "chain", "key_passphrase_file"}:
        raise Invalid("import names the files certificate and key, and may name chain and key_passphrase_file")
    secret = given.get("key_passphrase_file")
    passphrase = None if secret is None else read_private(secret).rstrip(b"\r\n")
    return read_issuer(given["certificate"], given["key"], given.get("chain"), passphrase, utc_now())


def _log_failure(task: asyncio.Task[None]) -> None:
    """A round is done again at the next step or start, and who connects has the certificates renewed as well."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("the %s failed", task.get_name(), exc_info=error)
