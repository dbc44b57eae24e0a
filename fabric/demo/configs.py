"""The configuration files of the demo's processes."""

from collections.abc import Mapping

from fabric.demo.layout import OTHER, PUBLIC, SECRET, SOURCE_NAME, Host, Layout

_AUDIT = "[audit]\nhead_interval_s = 2\n"


def _policy(layout: Layout, repository: object, state: str = "state/policy") -> str:
    return f"""[policy]
root = "{layout.anchor}"
repository = "{repository}"
state = "{state}"
refresh_s = 1"""


def authority_toml(layout: Layout, broker: str) -> str:
    """authority.toml"""
    certificate, key = layout.platform("verifier")
    admin_certificate, admin_key = layout.platform("admin")
    return f"""
[authority]
listen = "127.0.0.1:{layout.authority_port}"
folder = "state"
verifier_key = "{layout.pki / "verifier.keys"}"
issuing_certificate = "{layout.pki / "svid-ca.pem"}"
issuing_key = "{layout.pki / "svid-ca.key"}"
replication_factor = 1
timestamp_key = "{layout.pki / "policy" / "timestamp.pem"}"
[tls]
certificate = "{certificate}"
key = "{key}"
ca = "{layout.ca}"
[admin]
certificate = "{admin_certificate}"
key = "{admin_key}"
[gateway]
bootstrap = ["{layout.gateway}"]
[broker]
bootstrap = ["{broker}"]
{_policy(layout, layout.repository)}
{_AUDIT}
[web]
listen = "127.0.0.1:{layout.authority_web_port}"
"""


def gateway_toml(layout: Layout, broker: str) -> str:
    """gateway.toml"""
    certificate, key = layout.platform("gateway")
    return f"""
[gateway]
listen = "127.0.0.1:{layout.gateway_port}"
advertised = ["{layout.gateway}"]
side_listen = "127.0.0.1:{layout.gateway_side_port}"
[tls]
certificate = "{certificate}"
key = "{key}"
ca = "{layout.ca}"
[broker]
bootstrap = ["{broker}"]
{_policy(layout, f"{layout.authority}/policy", "policy")}
{_AUDIT}
[web]
listen = "127.0.0.1:{layout.gateway_web_port}"
"""


def agent_toml(layout: Layout, host: Host, broker: str, tcti: str, parts: str) -> str:
    """agent.toml of one host; `parts` holds its captures and applies."""
    return f"""
[agent]
host = "{host.id}"
folder = "state"
[authority]
url = "{layout.authority}"
[tls]
ca = "{layout.ca}"
[gateway]
bootstrap = ["{layout.gateway}"]
refusals = ["{layout.refusals}"]
[broker]
bootstrap = ["{broker}"]
[tpm]
tcti = "{tcti}"
[web]
listen = "127.0.0.1:{host.web_port}"
[block]
changes_max = 1000
linger_s = 0.0
silence_s = 10
{_policy(layout, f"{layout.authority}/policy")}
{_AUDIT}
{parts}
"""


def capture(kind: str, url: str) -> str:
    """The capture of host A's two tables."""
    slot = 'slot = "fabric_registry"\npublication = "fabric_registry"' if _is_server(kind) else ""
    return f"""
[[capture]]
source = "{SOURCE_NAME}"
kind = "{kind}"
url = "{url}"
{slot}
[capture.tables]
"{_table(kind, "wards")}" = "{PUBLIC}"
"{_table(kind, "residents")}" = "{SECRET}"
[outbox]
source = "outbox"
topics = ["{OTHER}"]
"""


def apply(kind: str, url: str) -> str:
    """The apply of host B's (and, in vain, host C's) tables."""
    return f"""
[[apply]]
kind = "{kind}"
url = "{url}"
[apply.tables]
"{PUBLIC}" = "{_table(kind, "wards")}"
"{SECRET}" = "{_table(kind, "residents")}"
"""


def tables(kind: str) -> Mapping[str, str]:
    """Table name by topic, for a kind of database."""
    return {str(PUBLIC): _table(kind, "wards"), str(SECRET): _table(kind, "residents")}


def _is_server(kind: str) -> bool:
    return kind == "postgresql"


def _table(kind: str, name: str) -> str:
    return f"public.{name}" if _is_server(kind) else name


__all__ = ["OTHER", "agent_toml", "apply", "authority_toml", "capture", "gateway_toml", "tables"]
