"""What must not be published although it loads."""

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fabric.model.errors import Reason, UsageError
from fabric.policy.review import later, review
from fabric.policy.types import Policy
from tests.fakes.policy_files import SCHEMA, SENDER, documents, files, load
from tests.fakes.tpm import FakeTpm, FakeTpmCa

NOW = datetime(2026, 9, 1, tzinfo=UTC)
LATER = datetime(2026, 12, 1, tzinfo=UTC)


def refusal(before: Policy | None, after: Policy, now: datetime = NOW) -> str:
    with pytest.raises(UsageError) as caught:
        review(before, after, now)
    assert caught.value.reason is Reason.POLICY_INVALID
    return str(caught.value.args[0])


def test_first_policy_and_one_without_changes_pass() -> None:
    review(None, load(files()), NOW)
    review(load(files()), load(files()), NOW)


def test_approval_that_has_ended_is_refused_by_name() -> None:
    text = refusal(None, load(files()), LATER)
    assert text.startswith(f"approvals/{SENDER}.yaml: not_after: has passed")


def test_schema_that_cannot_read_the_published_one_is_refused() -> None:
    worse = {**files(), "schemas/G01/residents.avsc": SCHEMA.replace(b'"string"}', b'"long"}')}
    text = refusal(load(files()), load(worse))
    assert text.startswith("datasets/G01/residents.yaml: schema: cannot read")
    review(None, load(worse), NOW)


def test_dataset_that_moves_to_another_level_keeps_to_its_predecessor() -> None:
    changed = documents()
    dataset = changed["datasets/G01/residents.yaml"]
    dataset |= {"level": "top-secret", "label": "top-secret+personal-data"}
    worse = {
        **files(changed),
        "schemas/G01/residents.avsc": SCHEMA.replace(b'"string"}', b'"long"}'),
    }
    assert "cannot read" in refusal(load(files()), load(worse))


@pytest.mark.parametrize(
    ("key", "value", "cause"),
    [("partitions", 2, "must stay 1"), ("salt", "5b" * 32, "must stay as published")],
)
def test_dataset_keeps_its_partitioning_whatever_its_level(
    key: str, value: object, cause: str
) -> None:
    for move in ({}, {"level": "top-secret", "label": "top-secret+personal-data"}):
        changed = documents()
        changed["datasets/G01/residents.yaml"] |= {key: value, **move}
        after = load(files(changed))
        text = refusal(load(files()), after)
        assert text.startswith(f"datasets/G01/residents.yaml: {key}: {cause}; publish a new")
        review(None, after, NOW)


def test_new_dataset_may_have_any_partitioning() -> None:
    changed = documents()
    more = {"partitions": 4, "salt": "5b" * 32, "schema_id": 3}
    changed["datasets/G01/people.yaml"] = changed["datasets/G01/residents.yaml"] | more
    changed["floors.yaml"]["floors"]["G01/people"] = "secret+personal-data"
    review(load(files()), load(files(changed)), NOW)


@pytest.mark.parametrize(
    ("change", "is_said"),
    [
        ({"digests": ["03" * 32]}, True),
        ({"pcrs": [0, 1]}, True),
        ({"ek_sha256": "09" * 32}, True),
        ({"ak_name": "000b" + "07" * 32}, True),
        ({"security_level": 3}, False),
        ({}, False),
    ],
)
def test_what_an_approval_demands_of_the_host_itself_is_said_to_count_later(
    change: dict[str, object], is_said: bool
) -> None:
    changed = documents()
    changed[f"approvals/{SENDER}.yaml"] |= change
    found = later(load(files()), load(files(changed)))
    assert [f"approvals/{SENDER}.yaml: " in text for text in found] == [True] * is_said
    assert later(None, load(files(changed))) == ()


def test_a_maker_of_tpms_that_is_taken_out_is_said_to_end_its_hosts_attestations() -> None:
    one, two = FakeTpmCa("one").pem, FakeTpmCa("two").pem
    both = load({**files(), "trust/ek-ca.pem": one + two})
    (sentence,) = later(both, load({**files(), "trust/ek-ca.pem": two}))
    assert sentence.startswith("policy.yaml: trust.ek_ca: a maker of TPMs is taken out")
    assert later(load({**files(), "trust/ek-ca.pem": two}), both) == ()


def test_makers_without_a_root_are_refused_because_no_host_would_attest() -> None:
    der = FakeTpmCa().certify(FakeTpm().ek.public_key())
    pem = x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
    assert "trust.ek_ca: names no self" in refusal(None, load({**files(), "trust/ek-ca.pem": pem}))
