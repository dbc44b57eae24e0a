"""Boot logs: read strictly, replayed, held against rules; no change of a log improves its lot."""

from dataclasses import replace
from hashlib import sha256

import pytest

from fabric.attest.event_log import check_rules, parse, replayed
from fabric.model import limits
from fabric.model.errors import DeniedError, FabricError, Malformed, Reason
from fabric.policy.event_types import EV_NO_ACTION, EVENT_TYPES
from fabric.policy.types import EventStep, PcrRule
from tests.fakes.boot import GOOD, PCRS, SEPARATOR, SHA1, SHA256, Boot, Entry, entry, spec_id, u32

BOOT = Boot()
HEAD = spec_id()


def rules_of(boot: Boot, *pcrs: int) -> tuple[PcrRule, ...]:
    return tuple(
        PcrRule(
            pcr=pcr,
            steps=tuple(
                EventStep(type=item.type, digests=(item.digest,), is_optional=False)
                for item in boot.entries
                if item.pcr == pcr and item.type != EV_NO_ACTION
            ),
        )
        for pcr in pcrs
    )


RULES = rules_of(BOOT, *PCRS)


def judged(log: bytes, digest: bytes, rules: tuple[PcrRule, ...] = RULES) -> None:
    """What appraisal does with a log: parse, replay, rules."""
    made = parse(log)
    if replayed(made, PCRS) != digest:
        raise DeniedError(Reason.EVIDENCE_REFUSED, "replay")
    check_rules(made, rules)


def refused(entries: tuple[Entry, ...], rules: tuple[PcrRule, ...] = RULES) -> str:
    """Why a boot that was really measured so is refused."""
    boot = Boot(entries=entries)
    with pytest.raises(DeniedError) as denied:
        judged(boot.log(), boot.digest(PCRS), rules)
    assert denied.value.reason is Reason.STATE_REFUSED
    return str(denied.value)


def test_good_boot_replays_and_keeps_its_rules() -> None:
    """MUST-9.9, MUST-9.12."""
    judged(BOOT.log(), BOOT.digest(PCRS))
    assert replayed(parse(BOOT.log()), (9, 0)) == BOOT.digest((0, 9))


def test_alternatives_and_optional_steps_are_kept_in_order() -> None:
    """MUST-9.12."""
    other = sha256(b"loader 2").digest()
    update = EventStep(
        type=EVENT_TYPES["EV_EFI_ACTION"], digests=(sha256(b"x").digest(),), is_optional=True
    )
    rule = RULES[1]
    steps = (*rule.steps[:2], update, replace(rule.steps[2], digests=(other, GOOD[9].digest)))
    rules = (RULES[0], replace(rule, steps=steps), *RULES[2:])
    judged(BOOT.log(), BOOT.digest(PCRS), rules)
    newer = BOOT.with_entry(9, measured=b"loader 2")
    judged(newer.log(), newer.digest(PCRS), rules)
    with_update = (*GOOD[:9], entry(4, "EV_EFI_ACTION", b"x"), *GOOD[9:])
    boot = Boot(entries=with_update)
    judged(boot.log(), boot.digest(PCRS), rules)
    assert "no step allows" in refused((*with_update, entry(4, "EV_EFI_ACTION", b"x")), rules)


@pytest.mark.parametrize("at", range(1, len(GOOD)))
def test_missing_event_is_refused_whichever_it_is(at: int) -> None:
    refused(GOOD[:at] + GOOD[at + 1 :])


@pytest.mark.parametrize("at", range(1, len(GOOD)))
def test_repeated_event_is_refused_whichever_it_is(at: int) -> None:
    refused((*GOOD[:at], GOOD[at], *GOOD[at:]))


def test_unknown_event_type_in_an_owned_pcr_is_refused_and_elsewhere_is_not() -> None:
    """MUST-9.10."""
    for kind in (0, 0x14, 0x8000_0011, 0xFFFF_FFFF):
        evil = Entry(pcr=7, type=kind, data=b"evil")
        assert "unknown type" in refused((*GOOD, evil))
        boot = Boot(entries=(*GOOD, replace(evil, pcr=8)))
        judged(boot.log(), boot.digest(PCRS))


def test_unknown_event_is_refused_though_a_rule_names_its_digest() -> None:
    step = EventStep(type=0x14, digests=(sha256(b"evil").digest(),), is_optional=True)
    rule = replace(RULES[3], steps=(*RULES[3].steps, step))
    assert "unknown type" in refused(
        (*GOOD, Entry(pcr=9, type=0x14, data=b"evil")), (*RULES[:3], rule)
    )


@pytest.mark.parametrize("at", [1, 3, 4, 8])
def test_digest_that_is_not_its_datas_is_refused_where_the_type_defines_it(at: int) -> None:
    """MUST-9.10: the text shown to people is the text that was measured."""
    item = GOOD[at]
    lied = BOOT.with_entry(at, data=b"something harmless", measured=item.data)
    assert lied.digest(PCRS) == BOOT.digest(PCRS)
    assert "not its data's" in refused(lied.entries)


@pytest.mark.parametrize(
    ("pcr", "name", "allowed"),
    [
        (0, "EV_EFI_PLATFORM_FIRMWARE_BLOB2", False),
        (0, "EV_EFI_ACTION", False),
        (4, "EV_EFI_BOOT_SERVICES_APPLICATION", True),
        (4, "EV_EFI_BOOT_SERVICES_DRIVER", False),
        (7, "EV_EFI_VARIABLE_AUTHORITY", True),
        (7, "EV_EFI_VARIABLE_DRIVER_CONFIG", False),
    ],
)
def test_only_what_loads_the_system_may_follow_the_separator(
    pcr: int, name: str, allowed: bool
) -> None:
    """MUST-9.11: also when a rule would let it."""
    boot = Boot(entries=(*GOOD, entry(pcr, name, b"late")))
    rules = rules_of(boot, *PCRS)
    if allowed:
        judged(boot.log(), boot.digest(PCRS), rules)
    else:
        assert "after its separator" in refused(boot.entries, rules)


@pytest.mark.parametrize(
    "entries",
    [
        tuple(item for item in GOOD if item.data != SEPARATOR),
        (*GOOD, entry(0, "EV_SEPARATOR", SEPARATOR)),
        tuple(replace(item, data=b"\1\0\0\0") if item.data == SEPARATOR else item for item in GOOD),
        (*GOOD, entry(9, "EV_SEPARATOR", SEPARATOR)),
    ],
    ids=["none", "two", "error", "in the system's PCR"],
)
def test_firmware_pcr_has_exactly_one_separator_and_no_other_has(
    entries: tuple[Entry, ...],
) -> None:
    """MUST-9.11."""
    assert "separator" in refused(entries, rules_of(Boot(entries=entries), *PCRS))


@pytest.mark.parametrize("locality", [0, 3, 4])
def test_startup_locality_is_where_pcr_0_begins(locality: int) -> None:
    start = entry(0, "EV_NO_ACTION", b"StartupLocality\0" + bytes([locality]))
    log = parse(Boot(entries=(start, *GOOD[1:])).log())
    value = bytes(31) + bytes([locality])
    for item in GOOD:
        if item.pcr == 0 and item.type != EV_NO_ACTION:
            value = sha256(value + item.digest).digest()
    assert replayed(log, (0,)) == sha256(value).digest()


@pytest.mark.parametrize(
    "entries",
    [
        (GOOD[0], *GOOD),
        (*GOOD[1:], GOOD[0]),
        (entry(0, "EV_NO_ACTION", b"StartupLocality\0\1"), *GOOD[1:]),
        (entry(0, "EV_NO_ACTION", b"StartupLocality\0"), *GOOD[1:]),
        (entry(1, "EV_NO_ACTION", b"StartupLocality\0\3"), *GOOD[1:]),
    ],
    ids=["twice", "late", "impossible", "missing", "another PCR"],
)
def test_startup_locality_that_cannot_be_is_malformed(entries: tuple[Entry, ...]) -> None:
    with pytest.raises(Malformed):
        parse(Boot(entries=entries).log())


def test_pcr_that_nothing_was_measured_into_keeps_its_first_value() -> None:
    log = parse(HEAD)
    assert replayed(log, (8, 17)) == sha256(bytes(32) + b"\xff" * 32).digest()


HUGE = b"\xff" * 4


@pytest.mark.parametrize(
    "data",
    [
        b"",
        BOOT.log()[len(HEAD) :],
        spec_id(signature=b"Spec ID Event02\0"),
        spec_id(version=b"\x01\x02"),
        spec_id(version=b"\x00\x01"),
        spec_id(((SHA1, 20),)),
        spec_id(((SHA256, 20),)),
        spec_id(((SHA256, 32), (SHA256, 32))),
        spec_id(((SHA256, 32), (9, 0))),
        spec_id(((SHA256, 32), (9, 65))),
        spec_id(()),
        spec_id(tuple((number, 32) for number in range(9, 18))),
        HEAD[:8] + b"\1" + HEAD[9:],
        b"\1" + HEAD[1:],
        HEAD + b"\0",
        HEAD + u32(0) + u32(1) + HUGE,
        HEAD + u32(0) + u32(1) + u32(1) + GOOD[1].marshal((SHA256,))[12:],
        HEAD + GOOD[1].marshal((SHA256, SHA1)),
        HEAD + GOOD[1].marshal((SHA256, SHA256)),
        HEAD + GOOD[1].marshal()[: -4 - len(GOOD[1].data)] + HUGE,
        HEAD + Entry(pcr=24, type=1, data=b"").marshal(),
        HEAD + Entry(pcr=2**32 - 1, type=1, data=b"").marshal(),
        HEAD + GOOD[0].marshal().replace(bytes(32), b"\1" * 32, 1),
        HEAD[:28] + HUGE + HEAD[32:],
        HEAD[:28] + u32(int.from_bytes(HEAD[28:32], "little") - 1) + HEAD[32:],
    ],
    ids=range(25),
)
def test_log_of_another_form_is_malformed(data: bytes) -> None:
    """MUST-9.9."""
    with pytest.raises(Malformed):
        parse(data)


def test_log_cut_anywhere_is_malformed_or_does_not_replay() -> None:
    log, digest = BOOT.log(), BOOT.digest(PCRS)
    for at in range(len(log)):
        with pytest.raises(FabricError):
            judged(log[:at], digest)


def test_any_changed_bit_breaks_replay_or_does_not_improve_the_verdict() -> None:
    """A refused boot stays refused whatever is changed in its log, bit by bit."""
    evil = BOOT.with_entry(9, measured=b"an unapproved loader")
    log, digest = evil.log(), evil.digest(PCRS)
    for at in range(len(log)):
        for bit in (0x01, 0x80):
            changed = bytearray(log)
            changed[at] ^= bit
            with pytest.raises(FabricError):
                judged(bytes(changed), digest)


def test_retyping_events_never_makes_a_refused_boot_a_good_one() -> None:
    """Types are not measured: replay holds, so the rules alone must refuse."""
    evil = BOOT.with_entry(9, measured=b"an unapproved loader")
    for kind in (*EVENT_TYPES.values(), EV_NO_ACTION, 0, 0x99):
        for pcr in range(24):
            changed = evil.with_entry(9, type=kind, pcr=pcr)
            log = changed.log()
            with pytest.raises(FabricError):
                judged(log, evil.digest(PCRS))


def test_extra_events_that_measure_nothing_change_no_verdict() -> None:
    noise = Entry(pcr=4, type=EV_NO_ACTION, data=b"any words at all")
    boot = Boot(entries=(*GOOD[:5], noise, *GOOD[5:]))
    judged(boot.log(), BOOT.digest(PCRS))


def test_long_log_and_too_many_events_are_malformed_before_they_cost_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """MUST-9.9."""
    with pytest.raises(Malformed, match="too long"):
        parse(bytes(limits.EVENT_LOG_BYTES_MAX + 1))
    monkeypatch.setattr("fabric.attest.event_log.EVENT_LOG_EVENTS_MAX", len(GOOD))
    with pytest.raises(Malformed, match="too many events"):
        parse(BOOT.log() + GOOD[-1].marshal())
