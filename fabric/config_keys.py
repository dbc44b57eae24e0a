"""Settings of signing keys: the table `[keys]` of agent.toml.

`fabric.config` reads the file; this is a section of it.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_LABEL_CHARS_MAX = 32  # as PKCS#11 has it


class KeysConfig(BaseModel):
    """Where this host's Ed25519 and ECDSA signing keys are made and kept.

    Attributes:
        provider: `file`, in the sealed state file, or `pkcs11`, on a token.
        module: the token's PKCS#11 library.
        token: its label.
        pin_file: holds the user's PIN, one line; the agent's user alone may read it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    provider: Literal["file", "pkcs11"] = "file"
    module: Path | None = None
    token: Annotated[str, Field(min_length=1, max_length=_LABEL_CHARS_MAX)] | None = None
    pin_file: Path | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        needed = {"module": self.module, "token": self.token, "pin_file": self.pin_file}
        for name, value in needed.items():
            if self.provider == "pkcs11" and value is None:
                raise ValueError(f"{name}: is missing; provider pkcs11 needs it")
            if self.provider == "file" and value is not None:
                raise ValueError(f"{name}: is for provider pkcs11; set provider or remove it")
        return self
