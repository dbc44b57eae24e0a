"""Write a Prometheus configuration that scrapes a running `fabric demo`.

    .venv/bin/python deploy/prometheus/demo.py /tmp/fabric-demo /tmp/fabric-prometheus

prints the command that starts Prometheus. The configuration is the committed one;
only the interval is shorter and the targets are the demo's.
"""

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

_HERE = Path(__file__).parent
_INTERVAL = "2s"
_FILES = {"authority": "authority.yml", "gateway": "gateways.yml"}


def targets(endpoints: Mapping[str, dict[str, str]]) -> dict[str, list[dict[str, object]]]:
    """Target groups by file name, from the demo's endpoints.json."""
    hosts: Mapping[str, Mapping[str, str]] = endpoints["hosts"]  # type: ignore[assignment]
    found: dict[str, list[dict[str, object]]] = {}
    for name, url in endpoints["metrics"].items():
        file = _FILES.get(name, "agents.yml")
        host = hosts[name]["host"] if name in hosts else ""
        labels = {
            "agency": host.partition("/")[0] or "platform",
            "role": "agent" if host else name,
            "instance": host or f"{name}-1",
        }
        address = url.removeprefix("http://").removesuffix("/metrics")
        found.setdefault(file, []).append({"targets": [address], "labels": labels})
    return found


def write(demo: Path, out: Path) -> Path:
    """Write prometheus.yml, the rules and the targets into `out`; the configuration's path."""
    endpoints = json.loads((demo / "endpoints.json").read_text())
    (out / "targets").mkdir(parents=True, exist_ok=True)
    for file, groups in targets(endpoints).items():
        (out / "targets" / file).write_text(yaml.safe_dump(groups))
    shutil.copy(_HERE / "rules.yml", out / "rules.yml")
    config = yaml.safe_load((_HERE / "prometheus.yml").read_text())
    config["global"] = {
        "scrape_interval": _INTERVAL,
        "scrape_timeout": _INTERVAL,
        "evaluation_interval": _INTERVAL,
    }
    path = out / "prometheus.yml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def command(config: Path, port: int) -> list[str]:
    """How to start Prometheus on loopback, with its data beside the configuration."""
    return [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={config.parent / 'data'}",
        "--storage.tsdb.retention.time=2h",
        f"--web.listen-address=127.0.0.1:{port}",
    ]


if __name__ == "__main__":
    written = write(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
    sys.stdout.write(" ".join(command(written, 9090)) + "\n")
