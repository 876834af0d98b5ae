"""Questions of an enrolment over the plain line: what counts of an answer, and what a refusal becomes."""

import pytest

from rsocket_broker.client.line import Address
from rsocket_broker.client.questions import MAX_DEVICE_ID, ask, asking, device_id_in, refusal
from rsocket_broker.errors import ApplicationError, ConnectionClosed, EnrollmentRefused
from tests.client.stub_broker import StubBroker

CLAIMS = b'{"os":"Linux"}'


def plain(stub: StubBroker) -> Address:
    return Address("127.0.0.1", stub.insecure_port)


async def test_an_answer_is_a_json_object(stub: StubBroker) -> None:
    stub.answer = lambda message: {"told": message["n"]}
    async with asking(plain(stub), CLAIMS) as connection:
        assert await ask(connection, {"n": 7}, 5) == {"told": 7}
    assert stub.plain_setups == [{"os": "Linux"}]
    assert connection.closing is not None


@pytest.mark.parametrize("told", [[], "x", 7, None])
async def test_an_answer_of_another_kind_is_none(stub: StubBroker, told: object) -> None:
    stub.answer = lambda message: told
    with pytest.raises(EnrollmentRefused, match="Is that port a broker's") as refused:
        async with asking(plain(stub), CLAIMS) as connection:
            await ask(connection, {}, 5)
    assert refused.value.step == "answer"


@pytest.mark.parametrize(
    ("words", "step"), [("proof: that folder holds another request.", "proof"), ("go away", "pairing")]
)
async def test_a_refusal_is_of_the_step_that_it_names_or_of_the_mediums(
    stub: StubBroker, words: str, step: str
) -> None:
    def refuse(message: dict[str, object]) -> object:
        raise ApplicationError(words)

    stub.answer = refuse
    with pytest.raises(EnrollmentRefused) as refused:
        async with asking(plain(stub), CLAIMS, "pairing") as connection:
            await ask(connection, {}, 5)
    assert refused.value.step == step
    assert words in refused.value.public


async def test_a_line_that_ends_is_no_refusal(stub: StubBroker) -> None:
    with pytest.raises(ConnectionClosed):
        async with asking(plain(stub), CLAIMS) as connection:
            connection.abort()
            await ask(connection, {}, 5)


@pytest.mark.parametrize("answer", [{}, {"deviceId": None}, {"deviceId": 7}, {"deviceId": "x" * (MAX_DEVICE_ID + 1)}])
def test_an_answer_that_names_no_device_is_none(answer: dict[str, object]) -> None:
    with pytest.raises(EnrollmentRefused, match="answer"):
        device_id_in(answer)


@pytest.mark.parametrize("device_id", ["", "emulator-5554", "é"])
def test_the_device_id_is_taken_as_it_is(device_id: str) -> None:
    assert device_id_in({"deviceId": device_id, "more": 1}) == device_id


def test_a_refusal_without_a_step_keeps_its_text() -> None:
    assert refusal("go away").step == "enrolment"
    assert "go away" in refusal("go away").public
