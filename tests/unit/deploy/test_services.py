"""Units, containers and manifests: they run commands that exist, on the samples' paths, shut in."""

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from fabric.cli.app import tree
from fabric.config_web import WebConfig

DEPLOY = Path(__file__).parents[3] / "deploy"
UNITS = DEPLOY / "systemd"
ROLES = ("agent", "gateway", "authority")
ON_PLATFORM = ("gateway", "authority")
USER = 10001
LOOPBACK = "127.0.0.1:"


def sample(role: str) -> dict[str, Any]:
    return tomllib.loads((DEPLOY / f"{role}.toml").read_text())


def written(role: str) -> set[PurePosixPath]:
    """Folders that a process with the sample's configuration writes into."""
    told = sample(role)
    found = {told[role]["folder"], told["policy"]["state"]}
    if role == "authority":  # it signs the repository's timestamp anew
        found.add(told["policy"]["repository"])
    return {PurePosixPath(name) for name in found}


def read(told: object) -> Iterator[PurePosixPath]:
    """Files that a sample names."""
    if isinstance(told, Mapping):
        for value in told.values():
            yield from read(value)
    elif isinstance(told, str) and re.fullmatch(r"/etc/fabric/[a-z.-]+", told):
        yield PurePosixPath(told)


def ports(role: str) -> set[int]:
    """What a sample listens on beyond loopback."""
    names = ("listen", "side_listen")
    listens = [sample(role).get(role, {}).get(name) for name in names]
    return {int(text.rpartition(":")[2]) for text in listens if text}


def assert_runs(args: Sequence[str], role: str) -> None:
    """The words are a command of the program, and its file is the sample's namesake."""
    *words, file = args
    assert words == [role, "run"]
    command: Any = get_command(tree([role]))
    for word in words:
        command = command.commands[word]
    assert [param.name for param in command.params if param.required] == ["config"]
    assert file == f"/etc/fabric/{role}.toml"


def assert_covers(folders: Sequence[str], role: str) -> None:
    """Each folder that is written lies in one that may be written, and no such one is idle."""
    may = [PurePosixPath(name) for name in folders]
    for folder in written(role):
        assert any(folder.is_relative_to(name) for name in may), f"{folder} may not be written"
    for name in may:
        assert any(folder.is_relative_to(name) for folder in written(role)), (
            f"{name} is for nothing"
        )


# systemd


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A system's root with our units, and what they need, in their places."""
    if shutil.which("systemd-analyze") is None:
        message = "systemd-analyze is missing: apt-get install systemd"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    root = tmp_path_factory.mktemp("root")
    shutil.copytree(UNITS, root / "etc/systemd/system")
    shutil.copytree("/usr/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True)
    program = root / "opt/fabric/bin/fabric"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return root


def analyze(root: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "--no-pager", f"--root={root}", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("role", ROLES)
def test_systemd_understands_every_line_of_a_unit(installed: Path, role: str) -> None:
    found = analyze(installed, "verify", "--man=no", f"fabric-{role}.service")
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_a_unit_with_a_misspelt_line_is_seen(installed: Path, tmp_path: Path) -> None:
    root = shutil.copytree(installed, tmp_path / "root", symlinks=True)
    sandbox = root / "etc/systemd/system/fabric-.service.d/sandbox.conf"
    sandbox.write_text(sandbox.read_text().replace("ProtectHome", "ProtectHomes"))
    assert "ProtectHomes" in analyze(root, "verify", "--man=no", "fabric-agent.service").stderr


@pytest.mark.parametrize("role", ROLES)
def test_a_service_is_shut_in(installed: Path, role: str) -> None:
    """systemd's own measure, in tenths, from 0 for what can do nothing to 100; sshd has 96."""
    found = analyze(
        installed, "security", "--offline=true", "--threshold=18", f"fabric-{role}.service"
    )
    assert found.returncode == 0, found.stdout[-2000:]


@pytest.mark.parametrize("role", ROLES)
def test_a_unit_runs_a_command_that_exists_where_the_sample_says(role: str) -> None:
    unit = (UNITS / f"fabric-{role}.service").read_text()
    started = re.findall(r"^ExecStart=/opt/fabric/bin/fabric (.+)$", unit, re.MULTILINE)
    assert len(started) == 1
    assert_runs(started[0].split(), role)
    states = re.findall(r"^StateDirectory=(.+)$", unit, re.MULTILINE)
    assert_covers([f"/var/lib/{name}" for name in states[0].split()], role)


def test_each_service_has_a_user_of_its_own() -> None:
    lines = (UNITS / "sysusers.conf").read_text().splitlines()
    users = {line.split()[1] for line in lines if line.startswith("u ")}
    groups = {tuple(line.split()[1:3]) for line in lines if line.startswith("m ")}
    for role in ROLES:
        unit = (UNITS / f"fabric-{role}.service").read_text()
        assert re.findall(r"^User=(.+)$", unit, re.MULTILINE) == [f"fabric-{role}"]
        assert f"fabric-{role}" in users
        assert (f"fabric-{role}", "fabric") in groups
    assert {name for name, group in groups if group == "tss"} == {"fabric-agent"}


# Containers


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yml").read_text())
    return found


def test_the_image_copies_what_there_is() -> None:
    lines = (DEPLOY / "container" / "Containerfile").read_text().splitlines()
    copied = [
        word for line in lines if re.match(r"COPY (?!--)", line) for word in line.split()[1:-1]
    ]
    allowed = (DEPLOY.parent / ".dockerignore").read_text().splitlines()
    assert len(copied) == 4
    for name in copied:
        assert (DEPLOY.parent / name).exists()
        assert f"!{name}" in allowed
    assert f"USER {USER}:{USER}" in lines


@pytest.mark.parametrize("role", ROLES)
def test_a_container_runs_a_command_and_writes_nothing_but_its_folders(role: str) -> None:
    service = compose()["services"][role]
    assert_runs(service["command"], role)
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    mounts = [text.split(":") for text in service["volumes"]]
    assert ["/etc/fabric", "/etc/fabric", "ro"] in mounts
    assert_covers([inside for _, inside, *more in mounts if more != ["ro"]], role)
    assert ("devices" in service) == (role == "agent")


def test_what_watches_gets_folders_that_exist() -> None:
    services = compose()["services"]
    named = [
        text.split(":")[0]
        for name in ("prometheus", "grafana")
        for text in services[name]["volumes"]
    ]
    folders = [name for name in named if name.startswith("./")]
    assert len(folders) == 3
    assert all((DEPLOY / name).is_dir() for name in folders)
    assert {name for name in named if not name.startswith("./")} == set(compose()["volumes"])


# Kubernetes

MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def pods(role: str) -> dict[str, Any]:
    (found,) = [
        doc
        for doc in documents(DEPLOY / "kubernetes" / f"{role}.yaml")
        if doc["kind"] == "StatefulSet"
    ]
    spec: dict[str, Any] = found["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_kubernetes_knows_every_field(path: Path, version: str) -> None:
    found = documents(path)
    assert found
    for document in found:
        kubernetes_validate.validate(document, version, strict=True)
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == "fabric"


def test_a_field_that_kubernetes_does_not_know_is_seen() -> None:
    document = documents(DEPLOY / "kubernetes" / "gateway.yaml")[0]
    document["spec"]["template"]["spec"]["containers"][0]["readonly"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, "1.37", strict=True)


@pytest.mark.parametrize("role", ON_PLATFORM)
def test_a_pod_runs_a_command_and_writes_nothing_but_its_folders(role: str) -> None:
    pod = pods(role)
    (container,) = pod["containers"]
    assert_runs(container["args"], role)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == USER
    for each in (*pod["initContainers"], container):
        assert each["securityContext"]["readOnlyRootFilesystem"] is True
        assert each["securityContext"]["allowPrivilegeEscalation"] is False
        assert each["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    mounts = [mount for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert_covers([m["mountPath"] for m in mounts if m["mountPath"] != "/tmp"], role)


@pytest.mark.parametrize("role", ON_PLATFORM)
def test_a_pod_is_asked_and_reached_where_the_sample_listens(role: str) -> None:
    (container,) = pods(role)["containers"]
    listens = sample(role)["web"]["listen"]
    assert listens.startswith(LOOPBACK)
    for probe in ("livenessProbe", "readinessProbe"):
        assert f"'http://{listens}/livez'" in container[probe]["exec"]["command"][-1]
    assert {port["containerPort"] for port in container["ports"]} == ports(role)
    base = documents(DEPLOY / "kubernetes" / "base.yaml")
    (opened,) = [
        {port["port"] for rule in doc["spec"]["ingress"] for port in rule["ports"]}
        for doc in base
        if doc["kind"] == "NetworkPolicy" and doc["metadata"]["name"] == role
    ]
    assert opened == ports(role)


@pytest.mark.parametrize("role", ON_PLATFORM)
def test_pages_are_opened_where_the_samples_other_lines_put_them(role: str) -> None:
    text = (DEPLOY / f"{role}.toml").read_text().partition("[web]")[2].partition("\n\n")[0]
    lines = [line.removeprefix("# ") for line in text.splitlines() if " = " in line]
    web = WebConfig.model_validate(tomllib.loads("\n".join(lines[1:])))
    assert str(web.local) == sample(role)["web"]["listen"]  # where the probes ask
    policies = [
        doc["spec"]["ingress"]
        for doc in documents(DEPLOY / "kubernetes" / "pages.yaml")
        if doc["metadata"]["name"] == f"{role}-pages"
    ]
    (((rule,)),) = policies
    assert [port["port"] for port in rule["ports"]] == [web.listen.port]
    assert rule["from"], "its pages are for a Prometheus alone"
    head = (DEPLOY / "kubernetes" / "pages.yaml").read_text().partition("apiVersion")[0]
    for value in (web.listen, web.local, web.certificate, web.key, web.client_ca):
        assert f'"{value}"' in head


@pytest.mark.parametrize("role", ON_PLATFORM)
def test_every_file_that_the_sample_names_is_asked_for_before_the_start(role: str) -> None:
    told = (DEPLOY / "kubernetes" / f"{role}.yaml").read_text().partition("apiVersion")[0]
    wanted = {path.name for path in read(sample(role))} | {f"{role}.toml"}
    assert len(wanted) > 4
    assert {name for name in wanted if name not in re.findall(r"[\w.-]+\.\w+", told)} == set()
