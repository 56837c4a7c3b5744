"""``RunSaver``: saves the checkpoints of a run, from which it is resumed, and its model.

While a run trains, the folder ``OUT.partial`` stands beside the output: a ``Job`` whose files are
checkpoints. An interrupted run resumes from its last checkpoint, and only with the same settings,
seed, length and corpus. It resumes if the user asks for it, or by itself if the launcher restarts
lost processes. A run that has already saved its model is finished, not resumed. The files of an
interrupted run are never overwritten silently. The folder is removed when the model is saved for
the first time, before it is measured.
"""

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

from reviewgen.errors import (
    AlreadyTrained,
    CheckpointError,
    ConfigError,
    OutputExists,
    storage_errors,
)
from reviewgen.processes import all_processes, launch_name, resumes_by_itself
from reviewgen.runs.plan import LAUNCH, SETTINGS, TrainingPlan, find_record
from reviewgen.saving.layout import Bundle
from reviewgen.saving.write import write_or_rescue
from reviewgen.storage import Job, check_output
from reviewgen.training.checkpoints import Checkpoints
from reviewgen.training.report import StopReason

# the reasons for which a run ends before it is complete
_CUT_SHORT = (StopReason.INTERRUPTED.value, StopReason.PROCESS_ENDED.value)


class RunSaver:
    """Saves a run: its checkpoints in ``OUT.partial``, then its model in the output folder. Without
    an output folder, nothing is saved. With several processes, only the main process uses the
    folders.

    Args:
        plan: The plan of the run.

    Attributes:
        checkpoints: The checkpoints in the folder. Only the main process has them, and only if
            there is an output. ``checkpoints.extra`` (the saved record of the run) and
            ``checkpoints.seconds`` are set in all processes.

    Raises:
        ConfigError: The run is to be resumed, but has no output folder.
        CheckpointError: The model is trained by counting, which cannot be resumed.
    """

    def __init__(self, plan: TrainingPlan) -> None:
        if plan.resume and plan.out is None:
            raise ConfigError(
                "Only a run with an output folder has checkpoints to resume from: give out, or"
                " leave resume out."
            )
        if plan.resume and plan.setup.is_counted:
            raise CheckpointError(
                f"{plan.preset} is trained by counting, which has no checkpoints: an interrupted"
                " count starts over. Leave out --resume (resume=True)."
            )
        self._plan = plan
        self._is_open = False
        self._is_saved = False
        self._job: Job | None = None
        # if the run had saved its model before the job restarted: the fingerprint of the corpus
        self._saved_corpus: str | None = None
        self.checkpoints = Checkpoints()

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Lock the folder for this run, and load the last checkpoint if the run is resumed; unlock
        it if the block fails.

        Raises:
            CheckpointError: The folder holds an interrupted run, and this run does not resume it;
                this run resumes, and there is nothing to resume; or the folder holds another run,
                is damaged or is in use.
            OutputExists: ``OUT.partial`` is not the folder of a run; or the launcher restarts lost
                processes, and the output folder exists.
            StorageError: The folder cannot be written.
            TrainingError: Some processes have an output folder, and others have none.
        """
        # the folder is open already if reading was interrupted and is tried again
        if not self._is_open:
            with all_processes() as processes:
                processes.refuse_differences(
                    {"whether there is an output folder": self._plan.out is None}
                )
                found = processes.main(lambda: self._open(processes.world_size), self._plan.out)
            self._saved_corpus, self.checkpoints.extra, self.checkpoints.seconds = found
            self._is_open = True
        with self.closed_on_error():
            yield

    def _open(self, processes: int) -> tuple[str | None, dict[str, Any], float]:
        """Open the folder in the main process.

        Returns:
            The fingerprint of the corpus if this run has already saved its model, else None; and
            ``extra`` and ``seconds`` of the last checkpoint.

        Raises:
            OutputExists: The launcher restarts lost processes, and the output folder exists but is
                not the finished result of this run.
        """
        plan = self._plan
        if plan.out is None:
            return None, {}, 0.0
        if resumes_by_itself():
            record = find_record(plan.out)
            is_complete = record.get("stopped") not in _CUT_SHORT
            # with ``overwrite``, only a model that this job has saved is kept
            is_kept = not plan.overwrite or record.get(LAUNCH) == launch_name()
            if is_complete and is_kept and record.get(SETTINGS) == plan.digest():
                return record["data"]["fingerprint"], {}, 0.0
            if not plan.overwrite:
                check_output(plan.out)
        facts = {**plan.facts(), "processes": processes, SETTINGS: plan.digest()}
        self._job = job = Job(plan.out, "training", facts)
        if plan.resume and not job.folder.is_dir():
            raise CheckpointError(
                f"There is no run to resume: {job.folder} does not exist. Leave out --resume"
                " (resume=True) to start one."
            )
        with storage_errors(job.folder):
            job.__enter__()
        # unlocks the folder, at the latest when this object is garbage
        self._close = weakref.finalize(self, job.__exit__)
        training = plan.setup.training
        self.checkpoints = checkpoints = Checkpoints(
            job.folder, training.checkpoint_seconds, training.checkpoints_kept
        )
        steps = checkpoints.steps()
        with self.closed_on_error():
            if steps and not (plan.resume or resumes_by_itself()):
                raise CheckpointError(
                    f"{job.folder} holds a run that was interrupted after step {steps[-1]:,} or"
                    " later. Resume it with the same command and --resume (resume=True), or remove"
                    " that folder to start over."
                )
            checkpoints.load()
        if plan.resume and not steps:
            checkpoints.note(
                "The run was interrupted before its first checkpoint, so it starts again."
            )
        return None, checkpoints.extra, checkpoints.seconds

    def require_corpus(self, fingerprint: str) -> None:
        """Check that the corpus is the same as before the run was interrupted.

        Raises:
            AlreadyTrained: The run had saved its model before the launcher restarted it.
            OutputExists: A run with the same settings has saved a model of another corpus.
            CheckpointError: The resumed run was started on another corpus.
        """
        if self._saved_corpus == fingerprint:
            raise AlreadyTrained(
                f"{self._plan.out} was saved before: it was trained with the same settings, on the"
                " same texts."
            )
        if self._saved_corpus is not None:
            raise OutputExists(
                f"{self._plan.out} already exists, and was trained on other texts. Give another"
                " folder, or remove it first."
            )
        if self._job is not None:
            with storage_errors(self._job.folder):
                self._job.require({"corpus": fingerprint})

    def save(self, bundle: Bundle) -> None:
        """Write the model to the output folder, replacing an earlier one of this run, and remove
        the checkpoints, which are no longer needed.

        Raises:
            StorageError: The output folder cannot be written; the message says where the model was
                saved instead.
        """
        if self._job is None:
            return
        write_or_rescue(bundle, self._job.out, overwrite=self._is_saved or self._plan.overwrite)
        if not self._is_saved and self._close.alive:  # the folder is still locked
            self._job.clear()
            self._close()
        self._is_saved = True

    @contextlib.contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Unlock the folder at once if the block of this context manager raises an error.

        The garbage collector would be too late: a notebook keeps the traceback of an error, and so
        the lock. After an interrupt the folder stays locked, since ``finish`` may still be called.
        """
        try:
            yield
        except Exception:
            if self._job is not None:
                self._close()
            self._is_open = False
            raise
