"""Train the weights of all networks in the background, one after the other, at the lowest priority:

    make weights

The first call clones this checkout at its current commit, with an environment of its own, into a
folder outside the checkout: ``REVIEWGEN_WEIGHTS``, by default ~/.cache/reviewgen-weights. So later
changes of the code do not disturb a training. Each call starts the queue, unless it runs, and
prints what is done, what runs, and the hours that are left. A queue that was killed is resumed by
the next call, from checkpoints that are at most five minutes apart. Nothing here reads the test
split. `kill -STOP -- -NUMBER` pauses the queue and what it runs, with the number that is printed,
and `kill -CONT -- -NUMBER` continues them. Needs Linux or macOS.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

from train_pretrained import RECIPES, TRAINED, TRIAL_SHARE

HERE = Path(__file__).resolve().parents[1]
FOLDER = (
    Path(os.environ.get("REVIEWGEN_WEIGHTS", "~/.cache/reviewgen-weights")).expanduser().resolve()
)
CLONE = FOLDER / "checkout"
PYTHON = FOLDER / "environment" / "bin" / "python"
READY = FOLDER / "installed"  # written when the clone and the environment are complete
LOCK = FOLDER / "queue.lock"  # locked while the queue runs; holds the number of its process
LOG = FOLDER / "log.txt"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
LOWEST_PRIORITY = 19
START_SECONDS = 60.0  # a busy machine starts Python slowly


def main(*options: str) -> None:
    """Start the queue in the background, unless it runs, and print its state; with --run, be the
    queue.
    """
    if options == ("--run",):
        run_queue()
    elif options:
        sys.exit(f"The one option is --run; got {' '.join(options)}.")
    else:
        if not READY.exists():
            install()
        if running_process() is None:
            start()
        print_state()


def jobs() -> list[tuple[str, list[str], float]]:
    """Return each training as its folder in ``TRAINED``, the arguments of train_pretrained.py and
    the hours of one core.
    """
    queue = []
    for name, recipe in RECIPES.items():
        trial_hours = TRIAL_SHARE * recipe.hours
        numbers = range(len(recipe.variants))
        queue += [
            (f"trials/{name}-{number}", [name, "--trial", str(number)], trial_hours)
            for number in numbers
        ]
        queue.append((name, [name, "--train"], recipe.hours))
    return queue


def is_done(folder: str) -> bool:
    """Return whether a training has saved its model."""
    return (FOLDER / TRAINED / folder).exists()


def install() -> None:
    """Clone the checkout at its current commit, and install it in an environment of its own."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    subprocess.run(["rm", "-rf", str(CLONE), str(PYTHON.parents[1])], check=True)
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(HERE), str(CLONE)], check=True)
    venv.create(PYTHON.parents[1], with_pip=True)
    subprocess.run(
        [str(PYTHON), "-m", "pip", "install", "--quiet", "--editable", f"{CLONE}[reviews]"],
        check=True,
    )
    READY.touch()


def start() -> None:
    """Start the queue in a session of its own, so that it outlives this terminal."""
    with LOG.open("a", encoding="utf-8") as log:
        subprocess.Popen(
            [str(PYTHON), str(CLONE / "examples" / "train_weights.py"), "--run"],
            cwd=FOLDER,
            env=os.environ | ONE_THREAD | {"REVIEWGEN_WEIGHTS": str(FOLDER)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while running_process() is None and time.monotonic() < deadline:
        time.sleep(0.5)


def run_queue() -> None:
    """Train what is not done, one training after the other; a training that fails is passed over,
    and said in the log.
    """
    with LOCK.open("a+", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        lower_priority()
        for folder, arguments, _ in jobs():
            if not is_done(folder):
                done = subprocess.run(
                    [str(PYTHON), str(CLONE / "examples" / "train_pretrained.py"), *arguments],
                    cwd=FOLDER,
                )
                print(
                    f"{folder}:"
                    f" {'done' if done.returncode == 0 else f'exit status {done.returncode}'}",
                    flush=True,
                )


def lower_priority() -> None:
    """Give this process, and what it starts, the lowest priority; on Linux among all sessions,
    too.
    """
    os.nice(LOWEST_PRIORITY)
    autogroup = Path("/proc/self/autogroup")
    if autogroup.exists():  # where it does, nice compares processes of one session only
        autogroup.write_text(str(LOWEST_PRIORITY), encoding="utf-8")


def running_process() -> int | None:
    """Return the number of the queue's process; None if it does not run."""
    with LOCK.open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            return int(lock.read() or 0)
    return None


def print_state() -> None:
    """Print what is done, the last line of the log, and the hours of one core that are left."""
    commit = subprocess.run(
        ["git", "-C", str(CLONE), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout
    print(f"{FOLDER}, commit {commit.strip()}")
    lines = LOG.read_text(encoding="utf-8").splitlines()
    latest = next((line for line in reversed(lines) if line.endswith(" %")), "")
    hours_left = 0.0
    for folder, _, hours in jobs():
        share = 0.0
        if is_done(folder):
            share = 1.0
        elif latest.startswith(f"{folder}: "):
            share = float(latest.split()[-2]) / 100
        state = "done" if share == 1 else f"{100 * share:.1f} %"
        print(f"  {folder:24} {state:>7}  of {hours:.1f} hours")
        hours_left += hours * (1 - share)
    process = running_process()
    print(
        f"About {hours_left:.1f} hours of one core are left. "
        + (f"Process {process} runs." if process else "Nothing runs.")
    )


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # of a terminal that is closed
    main(*sys.argv[1:])
