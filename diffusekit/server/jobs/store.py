"""The list of jobs on disk: a small SQLite file that only one server at a time can open."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from ...errors import DiskError, UsageError
from .job import Job

MAX_FINISHED = 1000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    job TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state);
"""


class JobStore:
    """Jobs in the order they were submitted. Every call is one transaction, synced to the disk."""

    def __init__(self, path: Path):
        """Raises `UsageError` while another server has the file open, `DiskError` when it cannot be opened."""
        self._path, self._lock = path, threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=0.2, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise DiskError(f"cannot open {path}: {error}", "choose another `state`") from None
        try:
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            self._db.close()
            if "locked" in str(error):
                raise UsageError(f"another server uses {path}", "stop it, or choose another `state`") from None
            hint = "move it away, then a new one is created"
            raise DiskError(f"{path} is not a list of jobs: {error}", hint) from None

    def save(self, job: Job) -> None:
        """Write a job as it is now; a new one is appended."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO jobs (id, state, job) VALUES (?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET state = excluded.state, job = excluded.job",
                (job.id, job.state, job.dump()),
            )

    def get(self, job_id: str) -> Job | None:
        with self._transaction() as db:
            row = db.execute("SELECT job FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return Job.load(row[0]) if row else None

    def list_newest(self, limit: int) -> list[Job]:
        with self._transaction() as db:
            rows = db.execute("SELECT job FROM jobs ORDER BY number DESC LIMIT ?", (limit,))
            return [Job.load(text) for (text,) in rows]

    def list_unfinished(self) -> list[Job]:
        """Jobs that wait or were running, oldest first."""
        with self._transaction() as db:
            rows = db.execute("SELECT job FROM jobs WHERE state IN ('queued', 'running') ORDER BY number")
            return [Job.load(text) for (text,) in rows]

    def prune(self) -> None:
        """Delete all but the newest `MAX_FINISHED` finished jobs; their images stay."""
        with self._transaction() as db:
            db.execute(
                "DELETE FROM jobs WHERE state NOT IN ('queued', 'running') AND number <="
                " (SELECT max(number) FROM jobs) - ?",
                (MAX_FINISHED,),
            )

    def delete(self, job_id: str) -> None:
        """Delete a finished job from the list; its images stay."""
        with self._transaction() as db:
            db.execute("DELETE FROM jobs WHERE id = ? AND state NOT IN ('queued', 'running')", (job_id,))

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                with self._db:
                    yield self._db
            except sqlite3.Error as error:
                hint = "check the disk space and the folder's permissions"
                raise DiskError(f"the list of jobs {self._path} cannot be used: {error}", hint) from error
