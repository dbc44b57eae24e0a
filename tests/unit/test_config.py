"""Config files: what is right loads, what is wrong is named with key and remedy."""

from pathlib import Path

import pytest

from fabric.config import AgentConfig, AuthorityConfig, GatewayConfig
from fabric.config_fields import Address
from fabric.model.errors import ConfigInvalid, Reason
from fabric.model.names import HostId, Topic

AGENT = """
[agent]
host = "G01/registry/host-a"
folder = "state"
[policy]
root = "root.json"
repository = "https://localhost:7443/policy"
state = "state/policy"
refresh_s = 1
[authority]
url = "https://localhost:7443/"
[tls]
ca = "ca.pem"
[gateway]
bootstrap = ["localhost:9392", "[::1]:9392"]
refusals = ["https://localhost:9393"]
[broker]
bootstrap = ["localhost:9192"]
[tpm]
tcti = "swtpm:path=tpm.sock"
[web]
listen = "127.0.0.1:9101"
[block]
changes_max = 10
[[capture]]
source = "registry"
kind = "postgresql"
url = "postgresql://user:pa55word@localhost/registry"
slot = "fabric_registry"
publication = "fabric_registry"
[capture.tables]
"public.residents" = "secret.G01.residents"
[[apply]]
kind = "sqlite"
url = "sqlite:///target.db"
[apply.tables]
"public.G01.wards" = "wards"
"""
GATEWAY = """
[gateway]
listen = "127.0.0.1:9392"
advertised = ["localhost:9392"]
side_listen = "127.0.0.1:9393"
[tls]
certificate = "gateway.pem"
key = "gateway.key"
ca = "ca.pem"
[broker]
bootstrap = ["localhost:9192"]
[policy]
root = "root.json"
repository = "mirror"
state = "policy"
"""
AUTHORITY = """
[authority]
listen = "127.0.0.1:7443"
folder = "state"
verifier_key = "verifier.keys"
issuing_certificate = "svid-ca.pem"
issuing_key = "svid-ca.key"
replication_factor = 1
[tls]
certificate = "verifier.pem"
key = "verifier.key"
ca = "ca.pem"
[admin]
certificate = "admin.pem"
key = "admin.key"
[gateway]
bootstrap = ["localhost:9392"]
[broker]
bootstrap = ["localhost:9192"]
[policy]
root = "root.json"
repository = "/etc/fabric/policy"
state = "state"
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "part.toml"
    path.write_text(text)
    return path


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        AgentConfig.load(written(tmp_path, text))
    assert caught.value.reason is Reason.CONFIG_INVALID
    return str(caught.value.args[0])


def test_agent_config_loads_with_paths_below_its_folder(tmp_path: Path) -> None:
    config = AgentConfig.load(written(tmp_path, AGENT))
    assert config.agent.host == HostId.parse("G01/registry/host-a")
    assert config.agent.folder == tmp_path / "state"
    assert config.policy.root == tmp_path / "root.json"
    assert config.policy.repository == "https://localhost:7443/policy"
    assert config.tls.ca == tmp_path / "ca.pem"
    assert config.authority.url == "https://localhost:7443"
    assert config.gateway.bootstrap == ("localhost:9392", "[::1]:9392")
    assert config.web.listen == Address("127.0.0.1", 9101)
    assert (config.block.changes_max, config.block.bytes_max) == (10, 500_000)
    assert config.capture[0].tables == {"public.residents": Topic.parse("secret.G01.residents")}
    assert config.apply[0].tables == {Topic.parse("public.G01.wards"): "wards"}
    assert config.apply[0].url == f"sqlite:///{tmp_path}/target.db"


def test_gateway_and_authority_configs_load(tmp_path: Path) -> None:
    gateway = GatewayConfig.load(written(tmp_path, GATEWAY))
    assert gateway.gateway.advertised == (Address("localhost", 9392),)
    assert gateway.tls.key == tmp_path / "gateway.key"
    authority = AuthorityConfig.load(written(tmp_path, AUTHORITY))
    assert authority.policy.repository == Path("/etc/fabric/policy")
    assert gateway.policy.repository == tmp_path / "mirror"
    assert authority.authority.replication_factor == 1
    assert authority.authority.result_lifetime_s is None
    assert authority.admin.certificate == tmp_path / "admin.pem"


def test_path_relative_to_the_working_folder_is_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, AGENT)
    monkeypatch.chdir(tmp_path)
    assert AgentConfig.load(Path("part.toml")).agent.folder == tmp_path / "state"


def test_environment_stands_above_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FABRIC_AUTHORITY__URL", "https://other:1")
    monkeypatch.setenv("FABRIC_BROKER__BOOTSTRAP", '["a:1"]')
    config = AgentConfig.load(written(tmp_path, AGENT))
    assert (config.authority.url, config.broker.bootstrap) == ("https://other:1", ("a:1",))


def test_wrong_value_of_the_environment_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FABRIC_BROKER__BOOTSTRAP", "a")
    assert "FABRIC_BROKER__BOOTSTRAP" in refusal(tmp_path, AGENT)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('host = "G01/registry/host-a"', "", "agent.host: is missing; add it"),
        ('host = "G01/registry/host-a"', 'host = "a"', "agent.host: identity must have the form"),
        ('host = "G01/registry/host-a"', "host = 5", "agent.host: must be text"),
        ('folder = "state"', 'folder = "x"\ncustody_after_s = 0', "agent.custody_after_s: "),
        ("refresh_s = 1", "refresh = 1", "policy.refresh: is not a known key"),
        ("refresh_s = 1", "refresh_s = 0", "policy.refresh_s: "),
        ("https://localhost:7443/policy", "http://localhost", "policy.repository: must be a URL"),
        ("https://localhost:7443/", "http://localhost:7443", "authority.url: must be a URL"),
        ("https://localhost:7443/", "https://me:pw@localhost", "authority.url: must be a URL"),
        ("https://localhost:7443/", "https://localhost:99999", "authority.url: is not a URL"),
        ('["localhost:9192"]', "[]", "broker.bootstrap: "),
        ('["localhost:9192"]', '["localhost"]', "broker.bootstrap.0: is not of the form host:port"),
        ('["localhost:9192"]', '["localhost:99999"]', "broker.bootstrap.0: has a port"),
        ('["localhost:9192"]', '["::1:9192"]', "broker.bootstrap.0: is not of the form"),
        ('["localhost:9192"]', '[":9192"]', "broker.bootstrap.0: is not of the form"),
        ("changes_max = 10", "changes_max = 0", "block.changes_max: "),
        ("changes_max = 10", "changes_max = 10001", "block.changes_max: "),
        ("changes_max = 10", "bytes_max = 900001", "block.bytes_max: "),
        ("changes_max = 10", "linger_s = -1", "block.linger_s: "),
        ("changes_max = 10", "silence_s = 11", "block.silence_s: "),
        ('kind = "postgresql"', 'kind = "oracle"', "capture.0.kind: "),
        ('slot = "fabric_registry"', 'slot = "a-b"', "capture.0.slot: "),
        ('source = "registry"', 'source = "Registry"', "capture.0.source: name must be"),
        ('source = "registry"', 'source = "outbox"', "two sources have one name"),
        ('"secret.G01.residents"', '"residents"', "capture.0.tables.public.residents: "),
        (
            "[[apply]]",
            '[[apply]]\nname = "1"\nkind = "sqlite"\nurl = "x"\n[apply.tables]\n'
            '"public.G01.a" = "a"\n[[apply]]',
            "apply: two targets have one name",
        ),
        ('"public.G01.wards" = "wards"', "", "apply.0.tables: "),
        ('"public.G01.wards" = "wards"', '"wards" = "wards"', "apply.0.tables.wards: "),
        (
            '"public.G01.wards" = "wards"',
            '"public.G01.wards" = "x"\n"public.G01.b" = "x"',
            "apply.0: tables: two topics fill one table",
        ),
        (
            '"public.residents" = "secret.G01.residents"',
            '"a" = "secret.G01.residents"\n"b" = "secret.G01.residents"',
            "capture.0: tables: two tables feed one topic",
        ),
        ("[tpm]", "[tmp]", "tmp: is not a known key"),
        ("[tls]", "[other]", "tls: is missing; add it"),
    ],
)
def test_wrong_key_is_named_with_a_remedy(tmp_path: Path, old: str, new: str, named: str) -> None:
    assert old in AGENT
    text = refusal(tmp_path, AGENT.replace(old, new))
    assert text.startswith(f"{tmp_path / 'part.toml'}: ")
    assert named in text


@pytest.mark.parametrize(
    ("kind", "text", "whose"),
    [
        (GatewayConfig, AGENT, "it is an agent's file; name gateway.toml instead"),
        (AuthorityConfig, AGENT, "it is an agent's file; name authority.toml instead"),
        (AgentConfig, AUTHORITY, "it is an authority's file; name agent.toml instead"),
        (GatewayConfig, AUTHORITY, "it is an authority's file; name gateway.toml instead"),
        (AgentConfig, GATEWAY, "so it is a gateway's file; name agent.toml instead$"),
        (AuthorityConfig, GATEWAY, "so it is a gateway's file; name authority.toml instead$"),
    ],
)
def test_another_processs_file_is_told_as_such(
    tmp_path: Path, kind: type[AgentConfig], text: str, whose: str
) -> None:
    with pytest.raises(ConfigInvalid, match=whose):
        kind.load(written(tmp_path, text))


def test_a_gateways_key_in_an_agents_own_file_is_a_wrong_key(tmp_path: Path) -> None:
    text = AGENT.replace("[gateway]", '[gateway]\nlisten = "127.0.0.1:1"')
    assert "gateway.listen: is not a known key" in refusal(tmp_path, text)


def test_no_word_of_the_library_stands_before_our_own(tmp_path: Path) -> None:
    text = AGENT.replace('host = "G01/registry/host-a"', "host = 5").replace(
        '"127.0.0.1:9101"', '"0.0.0.0:9101"'
    )
    assert "Value error" not in refusal(tmp_path, text)


def test_pages_for_everybody_are_refused_in_one_line_with_what_to_write(tmp_path: Path) -> None:
    text = refusal(tmp_path, AGENT.replace('"127.0.0.1:9101"', '"0.0.0.0:9101"'))
    assert text.startswith(f"{tmp_path / 'part.toml'}: web: listen: is not on loopback")
    assert "add certificate, key, client_ca" in text


def test_files_of_the_pages_are_below_the_files_folder(tmp_path: Path) -> None:
    more = '"0.0.0.0:9111"\ncertificate = "w.pem"\nkey = "w.key"\nclient_ca = "m.pem"'
    config = AgentConfig.load(written(tmp_path, AGENT.replace('"127.0.0.1:9101"', more)))
    assert config.web.files == (tmp_path / "w.pem", tmp_path / "w.key", tmp_path / "m.pem")


def test_the_name_of_a_file_is_no_comment_that_python_may_strip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GatewayConfig, "__doc__", None)
    with pytest.raises(ConfigInvalid, match=r"name gateway\.toml instead"):
        GatewayConfig.load(written(tmp_path, AGENT))


def test_slot_of_a_database_without_slots_is_refused(tmp_path: Path) -> None:
    text = AGENT.replace('kind = "postgresql"', 'kind = "sqlite"')
    assert "slot and publication belong to kind postgresql" in refusal(tmp_path, text)


def test_topic_fed_by_capture_and_outbox_is_refused(tmp_path: Path) -> None:
    text = AGENT.replace("[tpm]", '[outbox]\ntopics = ["secret.G01.residents"]\n[tpm]')
    assert "one topic is fed twice" in refusal(tmp_path, text)


def test_no_password_shows_anywhere(tmp_path: Path) -> None:
    config = AgentConfig.load(written(tmp_path, AGENT))
    assert "pa55word" not in repr(config)
    wrong = AGENT.replace('kind = "postgresql"', 'kind = "pa55word"') + "surprise = 1"
    assert "pa55word" not in refusal(tmp_path, wrong)


@pytest.mark.parametrize("data", [b"[agent", b"\xff", b"x = 1" * 300_000])
def test_file_that_is_no_toml_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "part.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigInvalid, match=r"part.toml: is"):
        GatewayConfig.load(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        GatewayConfig.load(tmp_path / "none.toml")


def test_configs_of_the_demo_load(tmp_path: Path) -> None:
    from fabric.demo import configs
    from fabric.demo.layout import lay_out

    layout = lay_out(tmp_path)
    host = layout.hosts["A"]
    for kind in ("postgresql", "sqlite"):
        parts = configs.capture(kind, "x") + configs.apply(kind, "x")
        text = configs.agent_toml(layout, host, "localhost:1", "swtpm:path=x", parts)
        config = AgentConfig.load(written(tmp_path, text))
        assert len(config.capture) == len(config.apply) == 1
    GatewayConfig.load(written(tmp_path, configs.gateway_toml(layout, "localhost:1")))
    AuthorityConfig.load(written(tmp_path, configs.authority_toml(layout, "localhost:1")))


def test_another_databases_url_is_no_path_of_a_sqlite_file_and_is_not_shown(tmp_path: Path) -> None:
    wrong = "postgresql://fabric:hunter2@db/registry"
    text = AGENT.replace("sqlite:///target.db", wrong)
    assert text != AGENT
    with pytest.raises(ConfigInvalid, match="sqlite:///path") as caught:
        AgentConfig.load(written(tmp_path, text))
    assert "hunter2" not in str(caught.value)
