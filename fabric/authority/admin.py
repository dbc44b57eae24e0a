"""The administrator's side of the authority's HTTPS interface, for the command line.

Every function reads [admin] and [tls] of authority.toml and asks the authority that
listens there. All raise UnavailableError AUTHORITY_UNAVAILABLE when it does not answer and
DeniedError with its reason when it refuses.
"""

import json
from collections.abc import Mapping, Sequence

from fabric.attest.messages import CONTENT_TYPE, Refusal
from fabric.authority.admin_messages import Decision, Scope
from fabric.config import AuthorityConfig
from fabric.config_fields import Address
from fabric.model.errors import (
    DeniedError,
    Malformed,
    Reason,
    ReasonClass,
    UnavailableError,
    class_of,
)
from fabric.model.names import HostId
from fabric.tls import client_context
from fabric.web.request import request

Entry = Mapping[str, str | int]
_ANSWER_BYTES_MAX = 16 * 1024 * 1024
_OK = 200
_UNHEARD = frozenset({Reason.AUTHORITY_UNAVAILABLE, Reason.OVERLOADED})
"""With these an answer says nothing of what was done before it."""
_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104  # compared, not bound


async def list_enrolments(config: AuthorityConfig) -> Sequence[Entry]:
    """Every enrolment: host, ek_sha256, ak_name (what an approval needs), enrolled."""
    return _entries(await _ask(config, "GET", "/admin/enrolments"))


async def list_hosts(config: AuthorityConfig) -> Sequence[Entry]:
    """Every host with state, level, clearance, approval, number, result, since, expires."""
    return _entries(await _ask(config, "GET", "/admin/hosts"))


async def suspend(config: AuthorityConfig, who: Scope, why: str) -> Sequence[Entry]:
    """Suspend hosts until approvals with greater numbers; an entry for each of them."""
    return _entries(await _against(config, "suspend", who, why))


async def revoke(config: AuthorityConfig, who: Scope, why: str) -> Sequence[Entry]:
    """Revoke hosts' approvals for good; new ones need greater numbers. An entry for each host."""
    return _entries(await _against(config, "revoke", who, why))


async def forget(config: AuthorityConfig, host: HostId, why: str) -> Entry:
    """Delete a host's enrolment, so that another TPM may enrol under its name."""
    answer = await _decide(config, "forget", Scope.parse(str(host)), why)
    if not isinstance(answer, dict):
        raise Malformed("authority's answer has a wrong shape")
    return answer


async def _against(config: AuthorityConfig, verb: str, who: Scope, why: str) -> object:
    try:
        return await _decide(config, verb, who, why)
    except UnavailableError as exc:
        if exc.reason not in _UNHEARD:
            raise  # the authority's own word on what it has kept
        raise UnavailableError(
            exc.reason,
            f"{exc.args[0]}; what it has kept nobody knows: give it again when it answers, nothing"
            " is given twice",
        ) from exc


async def _decide(config: AuthorityConfig, verb: str, who: Scope, why: str) -> object:
    return await _ask(config, "POST", f"/admin/{verb}", Decision(who=who, why=why).encode())


async def _ask(
    config: AuthorityConfig, method: str, path: str, body: bytes | None = None
) -> object:
    admin = config.admin
    status, kind, data = await request(
        method,
        _url(config.authority.listen) + path,
        context=client_context(admin.certificate, admin.key, config.tls.ca),
        body=body,
        answer_bytes_max=_ANSWER_BYTES_MAX,
    )
    if status != _OK:
        raise _refusal(status, kind, data)
    try:
        answer: object = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise Malformed("authority's answer is not JSON") from exc
    return answer


def _refusal(status: int, kind: str, data: bytes) -> DeniedError | UnavailableError:
    if kind != CONTENT_TYPE:
        return UnavailableError(Reason.AUTHORITY_UNAVAILABLE, f"authority answered {status}")
    refusal = Refusal.decode(data)
    if class_of(refusal.reason) is ReasonClass.WAIT:
        return UnavailableError(refusal.reason, refusal.message)
    return DeniedError(refusal.reason, refusal.message)


def _url(listen: Address) -> str:
    host = "localhost" if listen.host in _EVERYWHERE else listen.host
    return f"https://{Address(host, listen.port)}"


def _entries(answer: object) -> Sequence[Entry]:
    if not isinstance(answer, list):
        raise Malformed("authority's answer has a wrong shape")
    return answer
