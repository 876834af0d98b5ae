"""A proof holds for one token and one request, and is made by the recipe of docs/reference/wire.md."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.errors import ConfigurationError
from rsocket_broker.grant_tokens import SHAPE, GrantToken, proof_key, prove

WIRE = Path(__file__).parent.parent / "docs" / "reference" / "wire.md"
TOKEN = "0123456789ab." + "S" * 43
CSR = "-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----"


@pytest.mark.row("A-33", "M-8")
def test_the_recipe_of_the_reference_makes_the_same_grant() -> None:
    """Its code is run as it stands there, with the token and the request of its example."""
    (recipe,) = re.findall(r"```python\n(import base64\n.*?)```", WIRE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(recipe, names)
    token, csr = names["token"], names["csr"]
    assert isinstance(token, str) and isinstance(csr, str)
    (shown,) = re.findall(r"^# ([0-9a-f]{12}\.\S+)$", recipe, re.MULTILINE)
    assert names["grant"] == shown == GrantToken.parse(token).grant_for(csr)


@pytest.mark.row("A-33", "A-57", "M-8")
def test_what_is_shown_names_the_grant_and_not_the_secret() -> None:
    token = GrantToken.parse(TOKEN)
    assert token.id == "0123456789ab" and "SSSS" not in repr(token)
    shown = token.grant_for(CSR)
    assert shown.startswith("0123456789ab.") and SHAPE.fullmatch(shown) and "SSSS" not in shown


def test_line_ends_and_white_space_around_a_request_make_no_difference() -> None:
    key = proof_key("secret")
    windows = CSR.replace("\n", "\r\n")
    assert prove(key, CSR) == prove(key, f"\n {windows}\r\n")


@given(one=st.tuples(st.text(), st.text()), other=st.tuples(st.text(), st.text()))
def test_another_secret_or_another_request_is_another_proof(one: tuple[str, str], other: tuple[str, str]) -> None:
    one, other = (one[0], one[1].strip()), (other[0], other[1].strip())
    same = prove(proof_key(one[0]), one[1]) == prove(proof_key(other[0]), other[1])
    assert same is ((one[0], one[1].replace("\r", "").strip()) == (other[0], other[1].replace("\r", "").strip()))


@pytest.mark.parametrize(
    "text", ["", "0123456789ab", TOKEN[:-1], TOKEN + "S", TOKEN.upper(), TOKEN + "\n", " " + TOKEN]
)
def test_what_is_no_token_is_not_repeated(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no token of a grant") as caught:
        GrantToken.parse(text)
    assert not text or text not in caught.value.public
