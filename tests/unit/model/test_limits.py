"""The limits fit each other: what one lets through, the next can hold."""

from fabric.model import limits


def test_every_limit_is_a_positive_number_with_a_public_name() -> None:
    names = [name for name in vars(limits) if not name.startswith("_")]
    assert all(name.isupper() for name in names)
    assert all(getattr(limits, name) > 0 for name in names)


def test_a_block_fits_its_envelope_and_kafkas_default_record() -> None:
    assert limits.BLOCK_BYTES_MAX + limits.HEADER_BYTES_MAX < limits.ENVELOPE_BYTES_MAX
    assert limits.ENVELOPE_BYTES_MAX < 1024 * 1024
    assert limits.CONTROL_RECORD_BYTES_MAX < 1024 * 1024
    assert limits.ENVELOPE_BYTES_MAX < limits.FRAME_BYTES_MAX


def test_decompression_holds_a_whole_block() -> None:
    assert limits.BLOCK_BYTES_MAX <= limits.DECOMPRESSED_BYTES_MAX
    assert limits.PADDING_BYTES_MIN <= limits.BLOCK_BYTES_MAX


def test_an_epoch_start_of_most_recipients_fits_the_cbor_bound() -> None:
    assert 8 * limits.RECIPIENTS_MAX + 8 * limits.EPOCH_HEADS_MAX < limits.CBOR_ITEMS_MAX
    assert limits.RESULT_BYTES_MAX <= limits.REQUEST_BYTES_MAX


def test_what_carries_most_fits_its_number_of_values() -> None:
    keys = 4 * limits.BOUND_KEYS_MAX
    assert limits.RESULT_HEADS_MAX + keys + 64 < limits.CARRIER_ITEMS_MAX
    assert 3 * (limits.NOTICES_PER_ANSWER_MAX + 1) + 3 <= limits.NOTICES_ANSWER_ITEMS_MAX
    assert 1 + 4 + 4 * limits.SIGNATURES_MAX <= limits.CBOR_ITEMS_DEFAULT


def test_times_are_in_a_sane_order() -> None:
    assert limits.CLOCK_SKEW_S_MAX < limits.DELIVERY_S_DEFAULT < limits.RESULT_LIFETIME_S_DEFAULT
    assert limits.RETRY_S_MIN < limits.RETRY_S_MAX
    assert limits.POLICY_FILE_BYTES_MAX <= limits.POLICY_BYTES_MAX
