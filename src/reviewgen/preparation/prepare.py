"""The implementation of ``reviewgen.prepare``: checks the arguments in all processes, then runs the job."""

from pathlib import Path
from typing import Any, Unpack

from reviewgen.config import refuse_unknown_options
from reviewgen.data.store_folder import StoreFolder
from reviewgen.errors import ConfigError
from reviewgen.preparation.job import Job, make_job
from reviewgen.preparation.options import PrepareOptions
from reviewgen.preparation.run import run_job
from reviewgen.runs.prepared import find_store
from reviewgen.training import all_processes
from reviewgen.training.rounds import Watch, everywhere

__all__ = ["prepare_store"]


def prepare_store(
    source: Any, preset: str, out: str | Path, watch: Watch | None = None, **options: Unpack[PrepareOptions]
) -> StoreFolder:
    """Prepare a token store; under a launcher, all processes call this.

    Raises:
        ReviewgenError: See ``reviewgen.prepare``.
        ProcessLost: Another process has failed or ended.
    """
    jobs: list[Job] = []

    def check() -> None:
        refuse_unknown_options(options, PrepareOptions, "prepare", others=("preset", "out"))
        if find_store(source) is not None:
            raise ConfigError(f"{source} is a token store already: give it to reviewgen train --data.")
        jobs.append(make_job(source, preset, out, options))

    with all_processes() as processes:
        everywhere(processes, check, out)
        job = jobs[0]
        everywhere(processes, lambda: processes.refuse_differences({**job.identity(), **job.names()}), out)
        return run_job(job, processes, watch or (lambda _: None))
