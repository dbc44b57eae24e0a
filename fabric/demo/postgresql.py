"""A PostgreSQL server of our own on loopback, ready for logical replication.

The server refuses to run as root, so under root it runs as the user `postgres`
that Debian's package makes.
"""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import psycopg
from psycopg import sql

from fabric.demo.process import await_that, free_port, spawn, stop
from fabric.model.errors import Reason, UnavailableError

_USER = "postgres"
_INIT_S_MAX = 60
_SETTINGS = {
    "wal_level": "logical",
    "max_replication_slots": "20",
    "max_wal_senders": "20",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "max_connections": "100",
    "wal_sender_timeout": "20s",
    "fsync": "on",
}


def server_folder() -> Path | None:
    """Where the server's programs are, or None when PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_major)
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb else None


def _major(initdb: Path) -> int:
    name = initdb.parent.parent.name
    return int(name) if name.isdigit() else 0


class Postgres:
    """One cluster in `folder`; databases are made by name."""

    def __init__(self, folder: Path, *, port: int | None = None, keep: bool = False) -> None:
        self.folder = folder
        self._keep = keep
        self.port = port or free_port()
        self._child: subprocess.Popen[bytes] | None = None
        programs = server_folder()
        if programs is None:
            raise UnavailableError(
                Reason.DATABASE_UNAVAILABLE,
                "PostgreSQL is not installed; install the Debian package postgresql",
            )
        self._programs = programs

    @property
    def _data(self) -> Path:
        return self.folder.resolve() / "data"

    def create(self) -> "Postgres":
        """Initialise the cluster and write its settings."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            entry = pwd.getpwnam(_USER)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        command: list[str | Path] = [self._programs / "initdb", "-D", self._data, "-U", _USER]
        command += ["--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        child = spawn(command, self.folder / "initdb.log", user=_USER, cwd=Path("/"))
        if child.wait(_INIT_S_MAX) != 0:
            raise UnavailableError(
                Reason.DATABASE_UNAVAILABLE,
                f"initdb failed; see {self.folder / 'initdb.log'} (every parent folder must be"
                f" readable by the user {_USER})",
            )
        lines = [f"{key} = '{value}'\n" for key, value in _SETTINGS.items()]
        with (self._data / "postgresql.conf").open("a") as conf:
            conf.writelines(lines)
        return self

    def start(self) -> "Postgres":
        """Start the server and wait until it answers."""
        command: list[str | Path] = [self._programs / "postgres", "-D", self._data]
        command += ["-p", str(self.port)]
        log = self.folder / "postgres.log"
        self._child = spawn(command, log, user=_USER, cwd=Path("/"), keep=self._keep)
        await_that(self._answers, "PostgreSQL", wait_s=30, child=self._child)
        return self

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.Error:
            return False
        return True

    @property
    def pid(self) -> int | None:
        """Process id of the running server."""
        return self._child.pid if self._child else None

    def url(self, database: str) -> str:
        """Connection URL of one database."""
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Make an empty database; its URL."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database with its replication slots and connections."""
        with psycopg.connect(self.url(name), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
                " WHERE database = current_database() AND active"
            )
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                " WHERE database = %s AND NOT active",
                (name,),
            )
            drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            connection.execute(drop)

    def stop(self, *, kill: bool = False) -> None:
        """Stop the server (SIGINT would be fast shutdown; SIGTERM waits for sessions)."""
        if self._child is not None and not kill and self._child.poll() is None:
            self._child.send_signal(2)
        stop(self._child, kill=kill)
        self._child = None
