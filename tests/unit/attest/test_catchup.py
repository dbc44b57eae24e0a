"""The answer to whoever asks for notices: exact, bounded. MUST-9.34."""

import pytest

from fabric.attest.catchup import Catchup
from fabric.model import canonical
from fabric.model.errors import Malformed
from fabric.model.limits import REQUEST_BYTES_MAX


def test_records_come_back_in_their_order() -> None:
    told = Catchup(records=((b"one", b"1"), (b"two", b"2"), (b"one", b"3")))
    assert Catchup.decode(told.encode()) == told


def test_an_answer_that_is_too_long_is_not_even_parsed() -> None:
    with pytest.raises(Malformed):
        Catchup.decode(bytes(REQUEST_BYTES_MAX + 1))


@pytest.mark.parametrize(
    "value",
    [[], {0: 1}, {0: [[b"key"]]}, {0: [[b"key", b"value", b"more"]]}, {0: [[b"", b"value"]]},
     {0: [[b"key", b"v"]] * 66}, {0: [], 1: 0}],
    ids=str,
)  # fmt: skip
def test_an_answer_that_is_no_list_of_records_is_malformed(value: canonical.Value) -> None:
    with pytest.raises(Malformed):
        Catchup.decode(canonical.encode(value))
