"""Two machines on one: network namespaces with a cable between them, each with its own caches and working directory.

::

    with machines(folder) as (first, second):
        running = [machine.start("sh", "-c", "accelerate launch ...") for machine in (first, second)]

They share no folder but those that both are given, and each has a name of its own. Needs Linux, root, ``ip`` and ``unshare``.
"""

import functools
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

__all__ = ["Machine", "Running", "machines", "why_no_machines"]

_CABLE = "cable"  # the network interface of each machine
_NETNS = Path("/etc/netns")  # where ``ip netns exec`` looks for a namespace's own /etc/hosts
_AS_MACHINE = 'hostname "$0" && exec "$@"'


@dataclass
class Running:
    """A command that runs on a machine; what it prints is in ``file``."""

    process: Any
    file: Path

    def wait(self, seconds: float = 120.0) -> int:
        """Wait for its end, and return its exit status."""
        status: int = self.process.wait(seconds)
        return status

    def said(self) -> str:
        """Return what it has printed so far."""
        return self.file.read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """End it and all its child processes at once, as a power cut does."""
        if self.process.poll() is None:
            children = psutil.Process(self.process.pid).children(recursive=True)
            for each in (psutil.Process(self.process.pid), *children):
                with suppress(psutil.NoSuchProcess):
                    each.kill()
        self.process.wait()


@dataclass
class Machine:
    """A machine: a network namespace, and a folder for its caches and as its working directory.

    Attributes:
        rank: Its number, 0 or 1.
        address: Its address; that of the other is ``main_address`` or one more.
        main_address: The address of the first machine.
    """

    namespace: str
    folder: Path
    rank: int
    main_address: str
    running: list[Running] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its host name."""
        return f"machine-{self.rank}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that are its own."""
        home = {"HOME": "home", "HF_HOME": "huggingface", "REVIEWGEN_CACHE": "cache"}
        own = {name: str(self.folder / place) for name, place in home.items()}
        threads = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
        return own | threads | {"GLOO_SOCKET_IFNAME": _CABLE, "REVIEWGEN_MACHINE": str(self.rank)}

    def start(self, *words: str, **environment: str) -> Running:
        """Start a command."""
        file = self.folder / f"said-{len(self.running)}.txt"
        with file.open("wb") as stream:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, "unshare", "--uts", "sh", "-c", _AS_MACHINE, self.name, *words],
                cwd=self.folder,
                env=os.environ | self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        self.running.append(Running(process, file))
        return self.running[-1]


@functools.cache
def why_no_machines() -> str | None:
    """Return why there cannot be two machines here; None if there can."""
    for command, package in (("ip", "iproute2"), ("unshare", "util-linux")):
        if shutil.which(command) is None:
            return f"needs the command {command}, of {package}"
    name = f"rg-{uuid.uuid4().hex[:8]}"
    try:
        _ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        return f"network namespaces are not permitted here: {error.stderr.strip()}"
    _ip("netns", "delete", name)
    return None


@contextmanager
def machines(folder: Path) -> Iterator[tuple[Machine, Machine]]:
    """Make two machines, and remove them with whatever still runs there."""
    name = f"rg-{uuid.uuid4().hex[:8]}"
    both = tuple(Machine(f"{name}-{rank}", folder / f"machine-{rank}", rank, "10.77.0.1") for rank in range(2))
    try:
        for machine in both:
            machine.folder.mkdir(parents=True)
            (_NETNS / machine.namespace).mkdir(parents=True)
            names = "".join(f"10.77.0.{1 + each.rank} {each.name}\n" for each in both)
            (_NETNS / machine.namespace / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
            _ip("netns", "add", machine.namespace)
        first, second = both
        ends = (_CABLE, "netns", first.namespace), (_CABLE, "netns", second.namespace)
        _ip("link", "add", *ends[0], "type", "veth", "peer", "name", *ends[1])
        for machine in both:
            _ip("-n", machine.namespace, "address", "add", f"10.77.0.{1 + machine.rank}/24", "dev", _CABLE)
            for interface in (_CABLE, "lo"):
                _ip("-n", machine.namespace, "link", "set", interface, "up")
        yield first, second
    finally:
        for machine in both:
            for running in machine.running:
                running.kill()
            subprocess.run(["ip", "netns", "delete", machine.namespace], check=False, capture_output=True)
            shutil.rmtree(_NETNS / machine.namespace, ignore_errors=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=20)
