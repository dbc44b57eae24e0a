"""Every parser of the fabric that sees foreign bytes, by name. Add one: a line in its module.

The invariant, for all of them: any bytes give a value, or an error of the families that the
target names; nothing else is raised, nothing takes long, nothing grows large. Where one value
has one encoding, the value is written back as the very same bytes.
"""

from tests.fuzz import (
    attest_targets,
    audit_targets,
    kafka_targets,
    model_targets,
    policy_targets,
    seal_targets,
)
from tests.fuzz.target import Target

ALL: dict[str, Target] = {
    target.name: target
    for module in (
        model_targets,
        seal_targets,
        attest_targets,
        audit_targets,
        kafka_targets,
        policy_targets,
    )
    for target in module.TARGETS
}
