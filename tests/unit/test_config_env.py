"""The environment: text where the file has text, lists with commas; a fault names its variable."""

from pathlib import Path

import pytest

from fabric.config import AgentConfig, AuthorityConfig, GatewayConfig
from fabric.config_fields import Address
from fabric.model.errors import ConfigInvalid
from fabric.model.names import HostId, Topic
from tests.unit.test_config import AGENT, AUTHORITY, GATEWAY, written

OUTBOX = '[outbox]\ntopics = ["secret.G01.notes"]\n'


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Load an agent's file under variables of the environment."""

    def run(**variables: str) -> AgentConfig:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return AgentConfig.load(written(tmp_path, AGENT + OUTBOX))

    return run


def refusal(load, **variables: str) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        load(**variables)
    return str(caught.value.args[0]).partition("part.toml: ")[2]


# What is right


def test_a_single_value_is_plain_text_as_in_the_file(load) -> None:
    config = load(
        FABRIC_WEB__LISTEN="[::1]:9101",
        FABRIC_AGENT__HOST="G02/health/host-b",
        FABRIC_AGENT__FOLDER="/var/lib/other",
        FABRIC_BLOCK__LINGER_S="0.5",
        FABRIC_RECEIPTS__ENABLED="false",
    )
    assert config.web.listen == Address("::1", 9101)
    assert config.agent.host == HostId.parse("G02/health/host-b")
    assert config.agent.folder == Path("/var/lib/other")
    assert (config.block.linger_s, config.receipts.enabled) == (0.5, False)


def test_a_single_value_may_be_a_json_string(load) -> None:
    config = load(FABRIC_WEB__LISTEN='"127.0.0.1:1"', FABRIC_AGENT__HOST='"G02/health/host-b"')
    assert config.web.listen == Address("127.0.0.1", 1)
    assert config.agent.host == HostId.parse("G02/health/host-b")


@pytest.mark.parametrize("text", ["a:1,b:2", " a:1 , b:2,", '["a:1", "b:2"]'])
def test_a_list_is_items_with_commas_or_json(load, text: str) -> None:
    assert load(FABRIC_BROKER__BOOTSTRAP=text).broker.bootstrap == ("a:1", "b:2")


def test_a_list_of_names_is_read_as_one(load) -> None:
    config = load(FABRIC_OUTBOX__TOPICS="public.G01.a,public.G01.b")
    assert config.outbox.topics == (Topic.parse("public.G01.a"), Topic.parse("public.G01.b"))


def test_a_section_and_a_list_of_tables_are_json(load) -> None:
    one = '[{"source": "s", "kind": "sqlite", "url": "a.db", "tables": {"t": "public.G01.a"}}]'
    config = load(FABRIC_CAPTURE=one, FABRIC_WEB='{"listen": "127.0.0.1:9"}')
    assert config.capture[0].tables == {"t": Topic.parse("public.G01.a")}
    assert config.web.listen == Address("127.0.0.1", 9)


def test_addresses_of_platform_parts_are_plain_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FABRIC_GATEWAY__LISTEN", "0.0.0.0:9392")
    monkeypatch.setenv("FABRIC_GATEWAY__ADVERTISED", "a:1,b:2")
    gateway = GatewayConfig.load(written(tmp_path, GATEWAY)).gateway
    assert gateway.listen == Address("0.0.0.0", 9392)  # noqa: S104  # nothing listens
    assert gateway.advertised == (Address("a", 1), Address("b", 2))
    for name in ("LISTEN", "ADVERTISED"):
        monkeypatch.delenv(f"FABRIC_GATEWAY__{name}")
    monkeypatch.setenv("FABRIC_AUTHORITY__LISTEN", "127.0.0.1:1")
    assert AuthorityConfig.load(written(tmp_path, AUTHORITY)).authority.listen.port == 1


# What is wrong


@pytest.mark.parametrize(
    ("variable", "text", "key", "form", "why"),
    [
        ("WEB__LISTEN", "9101", "web.listen", "plain text without quotes", "host:port"),
        ("WEB__LISTEN", "[1]", "web.listen", "plain text without quotes", "must be text"),
        ("AGENT__HOST", "host", "agent.host", "plain text without quotes", "must have the form"),
        ("BLOCK__LINGER_S", "x", "block.linger_s", "plain text without quotes", "number"),
        ("BROKER__BOOTSTRAP", "a:1,b", "broker.bootstrap.1", "joined by commas", "host:port"),
        ("BROKER__BOOTSTRAP", '["a:1"', "broker.bootstrap.0", "joined by commas", "host:port"),
        ("OUTBOX__TOPICS", "{}", "outbox.topics", "joined by commas", "valid tuple"),
        ("CAPTURE", "registry", "capture", "a JSON list of tables", "valid tuple"),
        ("CAPTURE__0__URL", "x", "capture", "a JSON list of tables", "valid tuple"),
        ("WEB__LISTEN__PORT", "1", "web.listen", "plain text without quotes", "must be text"),
        ("WEB", "127.0.0.1:1", "web", "a table as JSON", "valid dictionary"),
        ("WEB", '{"listen": "x"}', "web.listen", "a table as JSON", "host:port"),
        ("WEB", '{"LISTEN": "x"}', "web.listen", "a table as JSON", "host:port"),
        ("WEB__LISTNE", "127.0.0.1:1", "web.listne", "", "is not a known key"),
    ],
)
def test_a_fault_names_the_variable_and_the_form(
    load, variable: str, text: str, key: str, form: str, why: str
) -> None:
    said = refusal(load, **{f"FABRIC_{variable}": text})
    where, _, what = said.partition("): ")
    assert where.startswith(f"{key} (FABRIC_{variable} of the environment")
    assert form in where
    assert why in what


def test_a_fault_of_the_file_is_not_laid_upon_a_variable(load, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("FABRIC_BLOCK", '{"linger_s": 1}')
    text = AGENT.replace("changes_max = 10", "changes_max = 0")
    with pytest.raises(ConfigInvalid) as caught:
        AgentConfig.load(written(tmp_path, text))
    assert "block.changes_max: " in str(caught.value)
    assert "FABRIC_" not in str(caught.value)


@pytest.mark.parametrize("name", ["CAPTURE", "WEB", "WEB__LISTEN", "BROKER__BOOTSTRAP"])
@pytest.mark.parametrize("text", ["[" * 50_000, '{"a":' * 20_000])
def test_what_is_nested_without_end_is_refused_as_any_other(load, name: str, text: str) -> None:
    assert f"(FABRIC_{name} of the environment" in refusal(load, **{f"FABRIC_{name}": text})


@pytest.mark.parametrize(
    ("above", "text", "below"),
    [
        ("WEB__LISTEN", "127.0.0.1:1", "WEB__LISTEN__PORT"),
        ("BLOCK__LINGER_S", "1", "BLOCK__LINGER_S__MAX"),
        ("CAPTURE", "[]", "CAPTURE__0__URL"),
        ("OUTBOX__TOPICS", "public.G01.a", "OUTBOX__TOPICS__0"),
    ],
)
def test_a_variable_that_would_count_for_nothing_is_refused(load, above, text, below) -> None:
    said = refusal(load, **{f"FABRIC_{above}": text, f"FABRIC_{below}": "2"})
    assert said == f"FABRIC_{below} goes on below another variable; remove one"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("FABRIC_BLOKC__LINGER_S", "FABRIC_BLOCK__LINGER_S"),
        ("FABRIC_BLOCK_LINGER_S", "FABRIC_BLOCK__LINGER_S"),
        ("fabric_broker_bootstrap", "FABRIC_BROKER__BOOTSTRAP"),
        ("FABRIC_CAPTRUE", "FABRIC_CAPTURE"),
    ],
)
def test_a_variable_of_no_section_is_refused_with_the_nearest_name(load, name, nearest) -> None:
    said = refusal(load, **{name: "pa55word"})
    assert said.startswith(f"{name} of the environment, nearest is {nearest}: is no setting; ")
    assert "pa55word" not in said


def test_a_variable_that_is_like_none_is_refused_too(load) -> None:
    assert refusal(load, FABRIC_CFG_PATH="1").startswith(
        "FABRIC_CFG_PATH of the environment: is no setting; "
    )


def test_an_unknown_key_of_a_section_is_told_with_the_nearest_name(load) -> None:
    said = refusal(load, FABRIC_WEB__LISTNE="127.0.0.1:1")
    assert "FABRIC_WEB__LISTNE of the environment, nearest is FABRIC_WEB__LISTEN)" in said


def test_a_section_of_another_process_is_none_of_ours(load) -> None:
    load(FABRIC_ADMIN__KEY="elsewhere.key")


@pytest.mark.parametrize("name", ["FABRIC_KAFKA_LIB", "FABRIC_TPM_GROUP", "FABRICATED"])
def test_a_variable_for_another_end_is_no_setting(load, name) -> None:
    load(**{name: "102"})


def test_a_key_stands_above_its_section(load) -> None:
    config = load(FABRIC_WEB='{"listen": "127.0.0.1:1"}', FABRIC_WEB__LISTEN="127.0.0.1:2")
    assert config.web.listen == Address("127.0.0.1", 2)


def test_a_variable_is_not_blamed_for_another_key_that_its_section_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FABRIC_KEYS__TOKEN", "right")
    keys = '[keys]\nprovider = "pkcs11"\nmodule = "module.so"\n'
    with pytest.raises(ConfigInvalid, match="keys: pin_file: is missing"):
        AgentConfig.load(written(tmp_path, AGENT + keys))


def test_no_value_of_the_environment_shows(load) -> None:
    assert "pa55word" not in refusal(load, FABRIC_AUTHORITY__URL="https://me:pa55word@localhost")
    assert "pa55word" not in refusal(load, FABRIC_CAPTURE='[{"url": "pa55word"')


@pytest.mark.parametrize(
    ("variable", "text", "key"),
    [("WEB", '{"pa55word": 1}', "web"), ("CAPTURE", '[{"pa55word": 1}]', "capture.0")],
)
def test_an_unknown_key_inside_a_value_does_not_show(load, variable, text, key) -> None:
    said = refusal(load, **{f"FABRIC_{variable}": text})
    assert "pa55word" not in said
    assert f"{key} (FABRIC_{variable} of the environment" in said
    assert "has a key that is not known" in said
