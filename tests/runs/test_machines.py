"""The commands of the page on many machines run, as on two machines: each has its own cache and working directory."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import reviewgen
from tests.support.fakes import TEXTS
from tests.support.launches import CPU, made_once

PAGE = (Path(__file__).parents[2] / "docs/how-to/multi-machine.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(bash|sh|yaml)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
QUICK = " --steps 2 --set training.evaluations=1 --set training.copy_tokens=0 --set training.threads=1 --set model.hidden_size=8"


def block(language: str, word: str) -> str:
    """Return the only block of the page in a language that has a word."""
    (text,) = [text for name, text in BLOCKS if name == language and word in text]
    return text


def job() -> dict[str, Any]:
    """Return the Kubernetes object of the page."""
    loaded: dict[str, Any] = yaml.safe_load(block("yaml", "PyTorchJob"))
    return loaded


def commands(port: int = 0) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the commands of the page, each with the variables of its cluster; ``{rank}`` is the number of the machine."""
    host = "127.0.0.1"
    plain = block("bash", "--num_machines 2").replace("ADDRESS", host).replace("--num_processes 8", "--num_processes 2")
    (slurm,) = re.findall(r"^srun sh -c '(.*?)'$", block("sh", "srun"), re.MULTILINE | re.DOTALL)
    (container,) = job()["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    (pod,) = container["args"]
    address = {"MASTER_ADDR": host, "MASTER_PORT": port, "WORLD_SIZE": 2, "RANK": "{rank}"}
    alone = "python -m reviewgen train gru-char --data /shared/reviews.csv --out /shared/plain"
    found = {
        "my-cluster": (plain.replace("--machine_rank 0", "--machine_rank {rank}"), {}),
        "my-slurm": (slurm, {"SLURM_NNODES": 2, "SLURM_NODEID": "{rank}", "GPUS": 1, "FIRST": host}),
        "my-job": (pod, address),
        "plain": (alone, address | {"LOCAL_RANK": 0}),
    }
    return {name: (words.replace("29500", str(port)), variables) for name, (words, variables) in found.items()}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run all commands on two machines."""
    folder = made_once(tmp_path_factory, "machines", _work)
    return SimpleNamespace(folder=folder, shared=folder / "shared", said=json.loads((folder / "said.json").read_text()))


def _work(folder: Path) -> None:
    shared, homes, said = folder / "shared", [folder / f"machine-{rank}" for rank in range(2)], {}
    for place in (shared, *homes):
        place.mkdir()
        (place / "reviews.csv").write_text("review\n" + "\n".join(TEXTS), encoding="utf-8")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for name in commands():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            words, variables = commands(free.getsockname()[1])[name]
        words = re.sub(r"(--out \S+)", rf"\1{QUICK}", words.replace("/shared", str(shared)))
        running = []
        for rank, home in enumerate(homes):
            own = {key: str(value).format(rank=rank) for key, value in variables.items()}
            own |= CPU | {"PATH": path, "REVIEWGEN_CACHE": str(home / "cache")}
            command = words.replace("{rank}", str(rank))
            streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            running.append(subprocess.Popen(command, shell=True, cwd=home, env=os.environ | own, **streams))
        said[name] = [[each.communicate(timeout=180)[0], each.returncode] for each in running]
    (folder / "said.json").write_text(json.dumps(said))


@pytest.mark.launch
@pytest.mark.parametrize("name", commands())
def test_the_commands_of_the_page_train_on_two_machines(name: str, cluster: Any) -> None:
    (said, first), (other, second) = cluster.said[name]
    assert (first, second) == (0, 0), said + other
    folder = cluster.folder / "machine-0" if name == "my-cluster" else cluster.shared
    assert reviewgen.load(folder / name).training["steps"] == 2
    assert "Saved in" in said and "Saved in" not in other
    for machine in ("machine-0", "machine-1"):
        assert list((cluster.folder / machine / "cache").iterdir()), "each machine has its own cache"
