"""From the files of a policy to a Policy, or to one clear refusal.

Holding a Policy proves that its documents parsed and fit each other. Expired
approvals and an expired policy still load, because old records are verified
against them; decisions refuse them.
"""

import re
from collections.abc import Mapping
from datetime import datetime

from cryptography import x509

from fabric.model.errors import FabricError, Malformed
from fabric.model.label import Levels
from fabric.model.limits import POLICY_BYTES_MAX, POLICY_FILE_BYTES_MAX, POLICY_FILES_MAX
from fabric.model.names import HostId, Topic, agency_code, part
from fabric.model.schema import RowSchema
from fabric.policy import check
from fabric.policy.documents import (
    AgencyDocument,
    ApprovalDocument,
    DatasetDocument,
    LevelDocument,
    PcrRuleDocument,
    PolicyDocument,
    SuiteDocument,
    TrustDocument,
    invalid,
    read_document,
    read_documents,
)
from fabric.policy.event_types import EVENT_TYPES
from fabric.policy.floors import FILE as FLOORS
from fabric.policy.floors import RELEASE, check_floor, read_floors, read_releases
from fabric.policy.types import (
    Approval,
    Basis,
    Dataset,
    EventStep,
    LevelRule,
    PcrRule,
    Policy,
    SuiteRule,
    Trust,
)

_POLICY, _LEVELS, _SUITES = "policy.yaml", "levels.yaml", "suites.yaml"
_AGENCY = re.compile(r"agencies/([^/]+)\.yaml")
_APPROVAL = re.compile(r"approvals/([^/]+/[^/]+/[^/]+)\.yaml")
_DATASET = re.compile(r"datasets/([^/]+)/([^/]+)\.yaml")
_CERTIFICATES_MAX = 1_000


def load(files: Mapping[str, bytes], *, version: int, expires: datetime) -> Policy:
    """Read and check a policy.

    Args:
        files: content by POSIX path relative to its root; every YAML file must
            be one that the folder's format knows, others are read when named.
        version: of the signed repository that the files come from.
        expires: when the first of its signatures ends, aware UTC.

    Raises:
        UsageError: POLICY_INVALID, `<file>: <key>: cause and remedy`.
    """
    _check_bounds(files)
    head = read_document(_POLICY, _file(files, _POLICY), PolicyDocument)
    suites = _suites(files)
    rules = _rules(files, suites)
    levels = Levels(tuple(rules))
    agencies = _agencies(files)
    approvals = _approvals(files)
    check.check_approvals(approvals, levels, agencies)
    floors = read_floors(_file(files, FLOORS), levels)
    releases = read_releases(files, levels)
    datasets = _datasets(files)
    for file, dataset in datasets.items():
        check.check_dataset(
            file,
            dataset,
            levels=levels,
            rule=rules.get(dataset.topic.level),
            suites=suites,
            agencies=agencies,
        )
        check_floor(file, dataset, levels=levels, floors=floors, releases=releases)
    check.check_datasets(datasets)
    return Policy(
        version=version,
        expires=expires,
        levels=levels,
        rules=rules,
        suites=suites,
        agencies=agencies,
        approvals={approval.host: approval for approval in approvals.values()},
        datasets={str(dataset.topic): dataset for dataset in datasets.values()},
        trust=_trust(files, head.trust),
        floors=floors,
        releases=releases,
    )


def _check_bounds(files: Mapping[str, bytes]) -> None:
    if len(files) > POLICY_FILES_MAX:
        raise invalid("policy", "files", f"are more than {POLICY_FILES_MAX}; remove old ones")
    if sum(len(data) for data in files.values()) > POLICY_BYTES_MAX:
        raise invalid("policy", "files", f"are more than {POLICY_BYTES_MAX} bytes together")
    known = {_POLICY, _LEVELS, _SUITES, FLOORS}
    for file, data in sorted(files.items()):
        if len(data) > POLICY_FILE_BYTES_MAX:
            raise invalid(file, "size", f"is more than {POLICY_FILE_BYTES_MAX} bytes")
        is_ours = any(shape.fullmatch(file) for shape in (_AGENCY, _APPROVAL, _DATASET, RELEASE))
        if file.endswith((".yaml", ".yml")) and file not in known and not is_ours:
            raise invalid(file, "path", "is no document of a policy; move or remove it")


def _file(files: Mapping[str, bytes], name: str, *, asked_by: str = "policy") -> bytes:
    if name not in files:
        raise invalid(asked_by, name, "is missing; add the file")
    return files[name]


def _suites(files: Mapping[str, bytes]) -> dict[str, SuiteRule]:
    documents = read_documents(_SUITES, _file(files, _SUITES), SuiteDocument)
    suites = {
        item.id: SuiteRule(id=item.id, status=item.status, until=item.until) for item in documents
    }
    if len(suites) != len(documents):
        raise invalid(_SUITES, "id", "one suite stands twice; remove one")
    return suites


def _rules(files: Mapping[str, bytes], suites: Mapping[str, SuiteRule]) -> dict[str, LevelRule]:
    documents = read_documents(_LEVELS, _file(files, _LEVELS), LevelDocument)
    rules = [
        LevelRule(
            name=item.name,
            sealed=item.sealed,
            suites=item.suites,
            host_level_min=item.host_level_min,
            evidence=frozenset(item.evidence),
            result_lifetime_s=item.result_lifetime_s,
            delivery_s=item.delivery_s,
            coding=item.coding,
            padding=item.padding,
            citation=item.citation,
            basis=tuple(
                Basis(
                    act=place.act,
                    place=place.place,
                    says=place.says,
                    since=place.since,
                    until=place.until,
                    is_inference=place.inference,
                )
                for place in item.basis
            ),
        )
        for item in documents
    ]
    check.check_levels(_LEVELS, rules, suites)
    return {rule.name: rule for rule in rules}


def _agencies(files: Mapping[str, bytes]) -> dict[str, str]:
    agencies: dict[str, str] = {}
    for file, match in _matching(files, _AGENCY):
        try:
            code = agency_code(match[1])
        except Malformed as exc:
            raise invalid(file, "path", str(exc.args[0])) from exc
        agencies[code] = read_document(file, files[file], AgencyDocument).name
    return agencies


def _approvals(files: Mapping[str, bytes]) -> dict[str, Approval]:
    approvals: dict[str, Approval] = {}
    for file, match in _matching(files, _APPROVAL):
        try:
            host = HostId.parse(match[1])
        except Malformed as exc:
            raise invalid(file, "path", str(exc.args[0])) from exc
        item = read_document(file, files[file], ApprovalDocument)
        approvals[file] = Approval(
            host=host,
            number=item.number,
            ek_sha256=item.ek_sha256,
            ak_name=item.ak_name,
            security_level=item.security_level,
            clearance=item.clearance,
            pcrs=item.pcrs,
            digests=item.digests,
            not_before=item.not_before,
            not_after=item.not_after,
            event_rules=tuple(_pcr_rule(rule) for rule in item.event_log),
        )
    return approvals


def _pcr_rule(rule: PcrRuleDocument) -> PcrRule:
    steps = tuple(
        EventStep(type=EVENT_TYPES[step.type], digests=step.digests, is_optional=step.optional)
        for step in rule.steps
    )
    return PcrRule(pcr=rule.pcr, steps=steps)


def _datasets(files: Mapping[str, bytes]) -> dict[str, Dataset]:
    datasets: dict[str, Dataset] = {}
    for file, match in _matching(files, _DATASET):
        item = read_document(file, files[file], DatasetDocument)
        try:
            topic = Topic(item.level, agency_code(match[1]), part(match[2]))
        except Malformed as exc:
            raise invalid(file, "path", str(exc.args[0])) from exc
        datasets[file] = Dataset(
            topic=topic,
            label=item.label,
            schema=_schema(files, file, item, match[1]),
            suite=item.suite,
            partitions=item.partitions,
            salt=item.salt,
            retention_s=item.retention_s,
            producers=item.producers,
            consumers=item.consumers,
            history=item.history,
            custodians=item.custodians,
            on_unappliable=item.on_unappliable,
            schema_id=item.schema_id,
            tags=dict(item.tags),
            legal_basis=item.legal_basis,
        )
    return datasets


def _schema(files: Mapping[str, bytes], file: str, item: DatasetDocument, agency: str) -> RowSchema:
    if not item.schema_.startswith(f"schemas/{agency}/"):
        # Whoever signs a schema shapes the dataset: it must be the same agency.
        raise invalid(file, "schema", f"must lie below schemas/{agency}/, which its agency signs")
    text = _file(files, item.schema_, asked_by=f"{file}: schema")
    try:
        return RowSchema.parse(text, item.key)
    except FabricError as exc:
        raise invalid(file, "schema or key", f"{item.schema_}: {exc.args[0]}") from exc


def _trust(files: Mapping[str, bytes], item: TrustDocument) -> Trust:
    return Trust(
        trust_domain=item.trust_domain,
        verifier_name=item.verifier.name,
        verifier_keys=tuple((k.alg, bytes.fromhex(k.public)) for k in item.verifier.keys),
        former_keys=tuple((k.alg, bytes.fromhex(k.public)) for k in item.verifier.former),
        ca_pem=_certificates(files, item.ca, "trust.ca"),
        ek_ca_pem=_certificates(files, item.ek_ca, "trust.ek_ca"),
    )


def _certificates(files: Mapping[str, bytes], name: str, key: str) -> bytes:
    data = _file(files, name, asked_by=f"{_POLICY}: {key}")
    try:
        found = x509.load_pem_x509_certificates(data)
    except ValueError as exc:
        raise invalid(_POLICY, key, f"{name} holds no certificates in PEM") from exc
    if len(found) > _CERTIFICATES_MAX:
        raise invalid(_POLICY, key, f"{name} holds more than {_CERTIFICATES_MAX} certificates")
    return data


def _matching(
    files: Mapping[str, bytes], shape: re.Pattern[str]
) -> list[tuple[str, re.Match[str]]]:
    return [(file, match) for file in sorted(files) if (match := shape.fullmatch(file))]
