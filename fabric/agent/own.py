"""What an agent takes for itself before it starts: its folder, its TPM, its key stores."""

import fcntl
import os
from pathlib import Path

from fabric.config_keys import KeysConfig
from fabric.model.errors import ConfigInvalid
from fabric.ports import KeyStore, Tpm
from fabric.store.file_keys import FileKeys
from fabric.store.tpm_keys import TpmKeys


def lock(path: Path) -> int:
    """Take the folder for this process alone; raises ConfigInvalid when another has it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(handle)
        raise ConfigInvalid(
            f"agent.folder: another agent runs with {path.parent}; a host runs one: stop it"
        ) from exc
    return handle


def key_stores(config: KeysConfig, tpm: Tpm) -> tuple[KeyStore, ...]:
    """Where signing keys may live, in order of preference; ML-DSA is always in software."""
    if config.provider == "file":
        return (TpmKeys(tpm), FileKeys())
    assert config.module is not None
    assert config.token is not None
    assert config.pin_file is not None
    from fabric.store.token_keys import TokenKeys

    token = TokenKeys(config.module, config.token, config.pin_file)
    return (TpmKeys(tpm), token, FileKeys())


def device(tcti: str) -> Tpm:
    """The host's TPM; the TSS is imported only here, where one is needed."""
    from fabric.tpm.device import TpmDevice

    return TpmDevice(tcti)
