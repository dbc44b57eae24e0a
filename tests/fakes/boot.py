"""A boot as firmware logs it: builds TCG crypto-agile logs, good ones and any other."""

from dataclasses import dataclass, field, replace
from hashlib import sha1, sha256

from fabric.policy.event_types import EV_NO_ACTION, EVENT_TYPES

SHA1, SHA256 = 0x0004, 0x000B
SIZES = {SHA1: 20, SHA256: 32}
SEPARATOR = bytes(4)


def u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def u16(number: int) -> bytes:
    return number.to_bytes(2, "little")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One event; its digest is its data's unless `measured` is what was measured."""

    pcr: int
    type: int
    data: bytes
    measured: bytes | None = None

    @property
    def digest(self) -> bytes:
        """What is extended into the SHA-256 bank."""
        if self.type == EV_NO_ACTION:
            return bytes(32)
        return sha256(self.data if self.measured is None else self.measured).digest()

    def marshal(self, banks: tuple[int, ...] = (SHA1, SHA256)) -> bytes:
        """TCG_PCR_EVENT2."""
        measured = self.data if self.measured is None else self.measured
        other = bytes(20) if self.type == EV_NO_ACTION else sha1(measured).digest()  # noqa: S324
        digests = {SHA1: other, SHA256: self.digest}
        body = b"".join(u16(bank) + digests[bank] for bank in banks)
        head = u32(self.pcr) + u32(self.type) + u32(len(banks))
        return head + body + u32(len(self.data)) + self.data


def entry(pcr: int, name: str, data: bytes, measured: bytes | None = None) -> Entry:
    """An event by the name of its type."""
    kind = EV_NO_ACTION if name == "EV_NO_ACTION" else EVENT_TYPES[name]
    return Entry(pcr=pcr, type=kind, data=data, measured=measured)


def spec_id(
    banks: tuple[tuple[int, int], ...] = ((SHA1, 20), (SHA256, 32)),
    *,
    signature: bytes = b"Spec ID Event03\0",
    version: bytes = b"\x00\x02",
    vendor: bytes = b"",
) -> bytes:
    """The head of a log: TCG_PCR_EVENT with TCG_EfiSpecIdEvent."""
    body = signature + u32(0) + version + b"\x00\x02" + u32(len(banks))
    body += b"".join(u16(bank) + u16(size) for bank, size in banks)
    body += bytes([len(vendor)]) + vendor
    return u32(0) + u32(EV_NO_ACTION) + bytes(20) + u32(len(body)) + body


@dataclass(frozen=True, kw_only=True)
class Boot:
    """A boot: its events in order."""

    entries: tuple[Entry, ...] = field(default_factory=lambda: GOOD)

    def log(self) -> bytes:
        """The whole log."""
        return spec_id() + b"".join(item.marshal() for item in self.entries)

    def values(self) -> dict[int, bytes]:
        """What PCR 0 to 15 hold after it, counted apart from the code under test."""
        values = {pcr: bytes(32) for pcr in range(16)}
        for item in self.entries:
            if item.type != EV_NO_ACTION and item.pcr in values:
                values[item.pcr] = sha256(values[item.pcr] + item.digest).digest()
        return values

    def digest(self, pcrs: tuple[int, ...]) -> bytes:
        """As a quote over `pcrs` would carry it."""
        values = self.values()
        return sha256(b"".join(values[pcr] for pcr in pcrs)).digest()

    def with_entry(self, at: int, **changes: object) -> "Boot":
        """The same boot with one event changed."""
        entries = list(self.entries)
        entries[at] = replace(entries[at], **changes)  # type: ignore[arg-type]
        return Boot(entries=tuple(entries))

    def rules(self, pcrs: tuple[int, ...]) -> list[dict[str, object]]:
        """The event_log of an approval that this boot keeps."""
        names = {number: name for name, number in EVENT_TYPES.items()}
        return [
            {
                "pcr": pcr,
                "steps": [
                    {"type": names[item.type], "digests": [item.digest.hex()]}
                    for item in self.entries
                    if item.pcr == pcr and item.type != EV_NO_ACTION
                ],
            }
            for pcr in pcrs
        ]


GOOD = (
    entry(0, "EV_NO_ACTION", b"StartupLocality\0\0"),
    entry(0, "EV_S_CRTM_VERSION", b"1\x002\x00"),
    entry(0, "EV_EFI_PLATFORM_FIRMWARE_BLOB2", b"where it lies", b"firmware"),
    entry(7, "EV_EFI_VARIABLE_DRIVER_CONFIG", b"SecureBoot=1"),
    entry(4, "EV_EFI_ACTION", b"Calling EFI Application from Boot Option"),
    entry(0, "EV_SEPARATOR", SEPARATOR),
    entry(4, "EV_SEPARATOR", SEPARATOR),
    entry(7, "EV_SEPARATOR", SEPARATOR),
    entry(7, "EV_EFI_VARIABLE_AUTHORITY", b"db: our own signer"),
    entry(4, "EV_EFI_BOOT_SERVICES_APPLICATION", b"path of the loader", b"loader 1"),
    entry(9, "EV_IPL", b"kernel\0", b"kernel 1"),
)
PCRS = (0, 4, 7, 9)
