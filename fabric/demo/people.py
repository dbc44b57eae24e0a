"""The demo's input: Viet Nam's wards as they are, and residents who do not exist.

Residents come from Faker (`vi_VN`) with a fixed seed, so that two runs hold the
same people; each refers to a real ward.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from faker import Faker
from vietnam_provinces import Province, Ward

_SEED = 1562
_FIRST_BIRTH = date(1935, 1, 1)
_BIRTH_DAYS = 32_000
_STAMP = datetime(2025, 7, 18, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class WardRow:
    """One ward with its province."""

    code: int
    name: str
    division: str
    province_code: int
    province_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidentRow:
    """One made-up resident."""

    id: int
    full_name: str
    birth_date: date
    gender: str
    id_number: str
    phone: str | None
    address: str
    ward_code: int
    is_active: bool
    updated_at: datetime

    def __repr__(self) -> str:  # made up, but the habit matters
        return f"ResidentRow(id={self.id})"


def wards() -> list[WardRow]:
    """Every ward, by code."""
    provinces = {int(province.code): province.name for province in Province.iter_all()}
    rows = [
        WardRow(
            code=int(ward.code),
            name=ward.name,
            division=str(ward.division_type.value),
            province_code=int(ward.province_code),
            province_name=provinces[int(ward.province_code)],
        )
        for ward in Ward.iter_all()
    ]
    return sorted(rows, key=lambda row: row.code)


def residents(count: int, *, first: int = 1) -> Iterator[ResidentRow]:
    """Residents numbered from `first`; the same numbers are always the same people."""
    fake = Faker("vi_VN")
    fake.seed_instance(_SEED + first)
    codes = [ward.code for ward in wards()]
    for number in range(first, first + count):
        yield ResidentRow(
            id=number,
            full_name=fake.name(),
            birth_date=_FIRST_BIRTH + timedelta(days=fake.random_int(0, _BIRTH_DAYS)),
            gender=fake.random_element(("nam", "nữ")),
            id_number=f"{fake.random_int(0, 10**12 - 1):012d}",
            phone=fake.phone_number() if number % 5 else None,
            address=fake.street_address(),
            ward_code=fake.random_element(codes),
            is_active=number % 50 != 0,
            updated_at=_STAMP + timedelta(seconds=number),
        )
