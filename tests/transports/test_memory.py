from rsocket_broker.transports.base import Channel, Peer
from rsocket_broker.transports.memory import HIGH_WATER, LOW_WATER, memory_pair
from tests.transports.recording import Recorder


async def test_nothing_arrives_from_inside_a_write() -> None:
    one, other = Recorder(), Recorder()
    memory_pair(one, other)
    one.transport.write([b"now?"])
    assert other.data == b""
    await other.received(b"now?")
    assert one.transport.peer == other.transport.peer == Peer("memory", Channel.MEMORY)


async def test_the_writer_is_paused_at_one_mark_and_resumed_at_another() -> None:
    one, other = Recorder(), Recorder()
    memory_pair(one, other)
    other.transport.pause_reading()
    one.transport.write([bytes(HIGH_WATER)])
    assert one.events == ["ready"]
    one.transport.write([b"x"])
    assert one.events == ["ready", "paused"]
    assert one.transport.queued == HIGH_WATER + 1
    other.transport.resume_reading()
    await one.until(lambda: one.events[-1] == "resumed")
    assert one.transport.queued <= LOW_WATER


async def test_the_other_end_of_a_dropped_line_hears_why() -> None:
    one, other = Recorder(), Recorder()
    memory_pair(one, other)
    one.transport.abort()
    assert isinstance(await other.lost(), ConnectionResetError)
    other.transport.write([b"anyone?"])
    other.transport.close()
    assert other.losses == [other.losses[0]]


async def test_both_ends_may_close_at_once() -> None:
    one, other = Recorder(), Recorder()
    memory_pair(one, other)
    one.transport.close()
    other.transport.close()
    assert await one.lost() is None
    assert await other.lost() is None
