"""A large message in Flipper's JSON, read beside the loop: what it is for, with its parameters made arguments."""

from contextlib import suppress
from typing import NamedTuple

from rsocket_broker.jsontext import JsonError
from rsocket_broker.plugin_api.handlers import Handler, Model
from rsocket_broker.policy.rules import Direction
from rsocket_broker.routing import flipper
from rsocket_broker.routing.apart import Arguments, arguments_of_text, arguments_of_value, message_in
from rsocket_broker.routing.plugin_host import PluginHost
from rsocket_broker.routing.reception import Reception
from rsocket_broker.routing.session import Session


class Ready(NamedTuple):
    """What takes the message, with what."""

    host: PluginHost
    handler: Handler
    arguments: Arguments


async def read_large(reception: Reception, session: Session, data: bytes, model: Model) -> Ready | flipper.Message:
    """A message that is no execute comes back as it is. Raises RequestFailed.

    Where the ends of its text say what it is for, nothing is parsed for a plugin that is not here or not allowed.
    """
    aside, found = reception.router.aside, flipper.parted(data)
    if found is not None and found.numbered and model is Model.FIRE:
        return flipper.Ignored()
    if found is not None:
        host, handler = await _find(reception, session, found.plugin, found.method, model, len(data))
        with suppress(JsonError):  # then the whole is parsed: it may be JSON all the same, or says where it is not
            arguments = await arguments_of_text(aside, handler, found.params)
            await permitted(session, host, handler.name)
            return Ready(host, handler, arguments)
    message = await message_in(aside, data, flipper.one_way_of if model is Model.FIRE else flipper.message_of)
    if not isinstance(message, flipper.Execute):
        return message
    host, handler = await _find(reception, session, message.plugin, message.method, model, len(data))
    arguments = await arguments_of_value(aside, handler, message.params)
    await permitted(session, host, handler.name)
    return Ready(host, handler, arguments)


async def permitted(session: Session, host: PluginHost, method: str) -> None:
    """Raises Rejected for what is not allowed; to be asked again once a message has been read, which may take seconds,
    and be a way around the policy that has come into force meanwhile."""
    waiting = session.access.check(Direction.IN, host.id, method)
    if waiting is not None:
        await waiting.over()


async def _find(
    reception: Reception, session: Session, plugin: str, method: str, model: Model, size: int
) -> tuple[PluginHost, Handler]:
    session.note("in", "event" if model is Model.FIRE else model.value, plugin, method, size)
    host = reception.host(plugin)
    await permitted(session, host, method)
    session.seat(host)
    return host, host.json_handler(method, model)
