"""The files of a gateway and an authority that are all in place, while nothing runs."""

from dataclasses import dataclass
from pathlib import Path

from fabric.authority.pki import make_ca
from fabric.demo import configs
from fabric.demo.layout import Layout, lay_out
from fabric.demo.papers import create_papers
from fabric.demo.policy import PolicyWriter

BROKER = "localhost:1"


@dataclass(frozen=True, kw_only=True)
class PlatformFiles:
    """Where they are; `write` changes a file's text before it is used."""

    layout: Layout
    gateway: Path
    authority: Path

    def change(self, file: Path, old: object, new: object) -> Path:
        """Replace a piece of a configuration; the file."""
        text = file.read_text()
        assert str(old) in text
        file.write_text(text.replace(str(old), str(new)))
        return file


def write_platform(folder: Path) -> PlatformFiles:
    """CAs, certificates, keys, a signed policy and both configurations."""
    layout = lay_out(folder)
    keys = create_papers(layout)
    PolicyWriter(layout).create(keys, make_ca("a maker of TPMs").cert_pem)
    texts = {
        "gateway": configs.gateway_toml(layout, BROKER),
        "authority": configs.authority_toml(layout, BROKER),
    }
    files = {}
    for name, text in texts.items():
        files[name] = folder / name / f"{name}.toml"
        files[name].parent.mkdir()
        # No authority serves here: each reads the published files themselves.
        files[name].write_text(text.replace(f"{layout.authority}/policy", str(layout.repository)))
    return PlatformFiles(layout=layout, **files)
