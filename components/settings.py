"""The environment: where services, folders and keys are. Read by the command line and the flows only.

Every field can be set as `OSTEOFLOW_<NAME>` in the environment or in a git-ignored `.env` (see infra/).
The defaults need nothing but this machine.
"""

from __future__ import annotations

import getpass
import os
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from components.errors import ConfigError

PLACEHOLDER = "CHANGE-ME"  # what the examples in infra/ hold in place of every secret


def _key_dir() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "osteoflow"


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="OSTEOFLOW_", env_file=".env", extra="ignore", frozen=True)

    workspace: Path = Field(default_factory=Path.cwd, description="the git repository that owns the data pointers")
    state_dir: Path | None = Field(default=None, description="databases, caches, ledger; <workspace>/.osteoflow")
    key_dir: Path = Field(default_factory=_key_dir, description="pseudonym and signing keys, outside the repository")
    user: str = Field(default_factory=getpass.getuser, description="who acts, as written into the ledger")

    dvc_remote: str | None = Field(default=None, description="folder or s3:// URL; default <state>/remote")
    inbox: Path | None = Field(default=None, description="where new studies arrive; default <state>/inbox")
    s3_endpoint_url: str | None = None
    s3_checksums: str = Field(default="when_supported", description="`when_required` for older S3-compatible stores")
    dicomweb_user: str | None = Field(default=None, description="who asks a PACS over DICOMweb (basic authentication)")
    dicomweb_password: SecretStr | None = None
    dicomweb_token: SecretStr | None = Field(default=None, description="bearer token for a PACS, instead of a password")
    mlflow_tracking_uri: str | None = Field(default=None, description="default: SQLite in <state>")
    mlflow_password: SecretStr | None = Field(default=None, description="basic-auth password of `user`")
    database_url: str | None = Field(default=None, description="prediction log; default: SQLite in <state>")

    host: str = "127.0.0.1"
    service_port: int = 8080
    mlflow_port: int = 5000
    prefect_port: int = 4200

    dicom_host: str = Field(default="127.0.0.1", description="where the DICOM node listens; DICOM knows no encryption")
    dicom_port: int = Field(default=11112, description="port of the DICOM node; 0 starts none")
    dicom_ae_title: str = Field(default="OSTEOFLOW", min_length=1, max_length=16)
    dicom_callers: str = Field(default="", description="AE titles that may send to the node, by comma; empty: any")

    @property
    def state(self) -> Path:
        return self.state_dir or self.workspace / ".osteoflow"

    @property
    def inbox_folder(self) -> Path:
        return self.inbox or self.state / "inbox"

    @property
    def remote_url(self) -> str:
        return self.dvc_remote or str(self.state / "remote")

    @property
    def tracking_uri(self) -> str:
        return self.mlflow_tracking_uri or f"sqlite:///{self.state / 'mlflow.db'}"

    @property
    def artifact_root(self) -> Path:
        """Where the embedded registry keeps artifacts (a team server decides for itself)."""
        return self.state / "mlflow-artifacts"

    @property
    def log_url(self) -> str:
        return self.database_url or f"sqlite:///{self.state / 'serving.db'}"

    @property
    def ledger_path(self) -> Path:
        return self.state / "ledger.jsonl"


def load_settings(workspace: Path | None = None) -> Settings:
    """Read the environment; `workspace` overrides OSTEOFLOW_WORKSPACE.

    Raises:
        ConfigError: a variable has the wrong type, or holds what an example file says instead of a value.
    """
    try:
        settings = Settings() if workspace is None else Settings(workspace=workspace)
    except ValidationError as error:
        problems = "; ".join(f"OSTEOFLOW_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"environment: {problems}") from None
    plain = {n: v.get_secret_value() if isinstance(v, SecretStr) else v for n, v in settings}
    if left := [name for name, value in plain.items() if isinstance(value, str) and PLACEHOLDER in value]:
        raise ConfigError(f"environment: OSTEOFLOW_{', OSTEOFLOW_'.join(left).upper()}: still {PLACEHOLDER}")
    return settings.model_copy(update={"workspace": settings.workspace.resolve()})
