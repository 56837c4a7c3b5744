"""``OUT.partial``, the folder beside the output while a run trains: a ``Job`` whose pieces are checkpoints.

An interrupted run resumes from its last checkpoint, and only with the same settings, seed, length and corpus: on request, or by
itself where the launcher restarts lost processes. A run that has already saved its model is finished, not resumed. What an
interrupted run has left is never overwritten silently. The folder is removed when the model is saved for the first time, before
it is measured.
"""

import contextlib
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reviewgen.errors import AlreadyTrained, CheckpointError, ConfigError, OutputExists, TrainingError, storage_errors
from reviewgen.model import Bundle
from reviewgen.model.write import write_or_rescue
from reviewgen.processes import all_processes, resumes_by_itself
from reviewgen.runs.plan import SETTINGS, TrainingPlan, find_record
from reviewgen.storage import Job, check_output
from reviewgen.training import Checkpoints, StopReason

_CUT_SHORT = (StopReason.INTERRUPTED.value, StopReason.PROCESS_ENDED.value)


class RunFolder:
    """The folder of a run; a run without an output has none. Of several processes, only the first uses it.

    Args:
        plan: The plan of the run.

    Attributes:
        checkpoints: The checkpoints in it; none without an output, and in all processes but the first.
        saved: What the checkpoint that is resumed from has saved of the run's record; empty for a new run.
        seconds: The time that the resumed run had trained before.

    Raises:
        ConfigError: There is nothing to resume from: no output.
        CheckpointError: The model is trained by counting, which cannot be resumed.
    """

    def __init__(self, plan: TrainingPlan) -> None:
        if plan.resume and plan.out is None:
            raise ConfigError("Only a run with an output folder has checkpoints to resume from: give out, or leave resume out.")
        if plan.resume and plan.parts.is_counted:
            raise CheckpointError(
                f"{plan.preset} is trained by counting, which has no checkpoints: an interrupted count starts over. "
                "Leave out --resume (resume=True)."
            )
        self._plan, self._is_open, self._is_saved = plan, False, False
        self._job: Job | None = None
        self._finished: str | None = None  # the fingerprint of the corpus, if the model was saved before a restart
        self.saved: Mapping[str, Any] = {}
        self.seconds = 0.0
        self.checkpoints = Checkpoints()

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Lock the folder for this run, and load the last checkpoint if the run is resumed; unlock it if the block fails.

        Raises:
            CheckpointError: The folder holds an interrupted run and this run does not resume it, or this run resumes and there is
                none; or what the folder holds is of another run, damaged or in use.
            OutputExists: It is not the folder of a run; or the job was started with restarts, and the output folder exists.
            StorageError: The folder cannot be written.
            TrainingError: Of several processes, only some have an output folder.
        """
        if not self._is_open:  # else reading was interrupted after this, and is tried again
            with all_processes() as processes:
                if processes.broadcast(self._plan.out is None) != (self._plan.out is None):
                    raise TrainingError("The processes have different settings: give all of them the output folder, or none.")
                resumed = processes.main(lambda: self._open(processes.world_size), self._plan.out)
                self.saved, self.seconds, self._finished = resumed
            self._is_open = True
        with self.closed_on_error():
            yield

    def _open(self, processes: int) -> tuple[Mapping[str, Any], float, str | None]:
        """Return ``saved``, ``seconds``, and of a run that is over the fingerprint of its corpus."""
        plan, training = self._plan, self._plan.parts.training
        finished = _find_finished(plan.out, plan.digest()) if plan.out is not None and resumes_by_itself() else None
        if plan.out is None or finished is not None:
            return {}, 0.0, finished
        self._job = job = Job(plan.out, {**plan.facts(), "processes": processes, SETTINGS: plan.digest()})
        if plan.resume and not job.folder.is_dir():
            raise CheckpointError(
                f"There is no run to resume: {job.folder} does not exist. Leave out --resume (resume=True) to start one."
            )
        with storage_errors(job.folder):
            job.__enter__()
        self._close = weakref.finalize(self, job.__exit__)
        self.checkpoints = checkpoints = Checkpoints(job.folder, training.checkpoint_seconds, training.checkpoints_kept)
        steps = checkpoints.steps()
        try:
            if steps and not (plan.resume or resumes_by_itself()):
                raise CheckpointError(
                    f"{job.folder} holds a run that was interrupted after step {steps[-1]:,} or later. Resume it with the same "
                    "command and --resume (resume=True), or remove that folder to start over."
                )
            checkpoints.load()
        except CheckpointError:
            self._close()
            raise
        if steps:
            checkpoints.note(f"The run resumes from step {checkpoints.steps()[-1]:,}.")
        elif plan.resume:
            checkpoints.note("The run was interrupted before its first checkpoint, so it starts again.")
        return checkpoints.extra, checkpoints.seconds, None

    def require_corpus(self, fingerprint: str) -> None:
        """Compare the corpus with that of the run that is resumed.

        Raises:
            AlreadyTrained: The run had saved its model before the launcher restarted it.
            OutputExists: A run of the same settings has saved a model of another corpus.
            CheckpointError: The resumed run was started on another corpus.
        """
        if self._finished == fingerprint:
            raise AlreadyTrained(f"{self._plan.out} was saved before: it was trained with the same settings, on the same texts.")
        if self._finished is not None:
            raise OutputExists(
                f"{self._plan.out} already exists, and was trained on other texts. Give another folder, or remove it first."
            )
        if self._job is not None:
            with storage_errors(self._job.folder):
                self._job.require({"corpus": fingerprint})

    def save(self, bundle: Bundle) -> None:
        """Write the model, in place of what this run has saved before, and remove the folder, which is of no more use.

        Raises:
            StorageError: The output folder cannot be written; says where the model was saved instead.
        """
        if self._job is None:
            return
        write_or_rescue(bundle, self._job.out, overwrite=self._is_saved)
        if not self._is_saved and self._close.alive:
            self._job.clear()
            self._close()
        self._is_saved = True

    @contextlib.contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Unlock the folder if a block raises an error.

        This does not wait for the garbage collector: a traceback that a notebook keeps would keep the lock. After an
        interrupt the folder stays locked, since the run may still be finished.
        """
        try:
            yield
        except Exception:
            if self._job is not None:
                self._close()
            self._is_open = False
            raise


def _find_finished(out: Path, settings: str) -> str | None:
    """Return the fingerprint of the corpus that a run of the same settings has trained the model in ``out`` on.

    Raises:
        OutputExists: Something else exists there.
    """
    training = find_record(out)
    if training.get(SETTINGS) == settings and training.get("stopped") not in _CUT_SHORT:
        return str(training["data"]["fingerprint"])
    check_output(out)
    return None
