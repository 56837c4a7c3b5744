"""The page on many machines: its commands for a cluster run on two of them."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import reviewgen
from tests.support.fakes import TEXTS
from tests.support.machines import Machine, Running, machines, why_no_machines

PAGE = (Path(__file__).parents[2] / "docs/how-to/multi-machine.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(bash|sh|yaml)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
QUICK = " --steps 2 --set training.evaluations=1 --set training.copy_tokens=0 --set training.threads=1 --set model.hidden_size=8"

needs_machines = pytest.mark.skipif(why_no_machines() is not None, reason=str(why_no_machines()))
Start = Callable[[Machine], Running]


def block(language: str, word: str) -> str:
    """Return the only block of the page in a language that has a word."""
    (text,) = [text for name, text in BLOCKS if name == language and word in text]
    return text


def job() -> dict[str, Any]:
    """Return the Kubernetes object."""
    loaded: dict[str, Any] = yaml.safe_load(block("yaml", "PyTorchJob"))
    return loaded


@pytest.fixture
def cluster(tmp_path: Path) -> Any:
    """Two machines that share the folder that the page calls /shared, and have reviews.csv as their own, too."""
    shared = tmp_path / "shared"
    shared.mkdir()
    with machines(tmp_path) as both:
        for folder in (shared, *(machine.folder for machine in both)):
            (folder / "reviews.csv").write_text("review\n" + "\n".join(TEXTS), encoding="utf-8")

        def run(command: str, **variables: Any) -> list[str]:
            """Run a command on both; ``{rank}`` in the value of a variable is the number of the machine."""
            words = re.sub(r"(--out \S+)", rf"\1{QUICK}", command.replace("/shared", str(shared)))
            running = []
            for machine in both:
                own = {name: str(value).format(rank=machine.rank) for name, value in variables.items()}
                running.append(
                    machine.start("sh", "-c", words.replace("--machine_rank 0", f"--machine_rank {machine.rank}"), **own)
                )
            assert [each.wait(180) for each in running] == [0, 0], [each.said() for each in running]
            return [each.said() for each in running]

        path = f"{Path(reviewgen.__file__).parents[2] / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"
        yield SimpleNamespace(run=run, shared=shared, both=both, path=path)


def saved(folder: Path) -> bool:
    return reviewgen.load(folder).training["steps"] == 2


@needs_machines
def test_two_machines(cluster: Any) -> None:
    command = block("bash", "--num_machines 2").replace("ADDRESS", cluster.both[0].main_address)
    command = command.replace("--num_processes 8", "--num_processes 2")
    cluster.run(command, PATH=cluster.path)
    assert saved(cluster.both[0].folder / "my-cluster") and not (cluster.both[1].folder / "my-cluster").exists()


@needs_machines
def test_the_command_of_slurm(cluster: Any) -> None:
    """What srun starts on each node, with the variables that Slurm and the script set there."""
    script = block("sh", "srun")
    assert re.findall(r"^export (\w+)=", script, re.MULTILINE) == ["GPUS", "FIRST"]
    (command,) = re.findall(r"^srun sh -c '(.*?)'$", script, re.MULTILINE | re.DOTALL)
    variables = {"SLURM_NNODES": 2, "SLURM_NODEID": "{rank}", "GPUS": 1, "FIRST": cluster.both[0].main_address}
    cluster.run(command, PATH=cluster.path, **variables)
    assert saved(cluster.shared / "my-slurm")


@needs_machines
def test_the_command_of_a_pod(cluster: Any) -> None:
    (container,) = job()["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    assert container["command"] == ["sh", "-c"]
    (command,) = container["args"]
    address = {"MASTER_ADDR": cluster.both[0].main_address, "MASTER_PORT": 29500}
    cluster.run(command, PATH=cluster.path, WORLD_SIZE=2, RANK="{rank}", **address)
    assert saved(cluster.shared / "my-job")


@needs_machines
def test_a_pod_without_a_launcher(cluster: Any) -> None:
    address = {"MASTER_ADDR": cluster.both[0].main_address, "MASTER_PORT": 29500}
    command = "python -m reviewgen train gru-char --data /shared/reviews.csv --out /shared/plain"
    first, second = cluster.run(command, PATH=cluster.path, WORLD_SIZE=2, RANK="{rank}", LOCAL_RANK=0, **address)
    assert saved(cluster.shared / "plain") and "Saved in" in first and "Saved in" not in second


def test_the_job_has_what_the_operator_asks_for() -> None:
    loaded = job()
    assert (loaded["apiVersion"], loaded["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    replicas = loaded["spec"]["pytorchReplicaSpecs"]
    assert set(replicas) == {"Master", "Worker"} and replicas["Master"]["replicas"] == 1
    for each in replicas.values():
        assert each["restartPolicy"] in ("Always", "OnFailure", "Never", "ExitCode")
        pod = each["template"]["spec"]
        (container,) = pod["containers"]
        assert container["name"] == "pytorch"  # the operator sets the variables in the container of this name
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
    given = set(re.findall(r"\$(\w+)", container["args"][0]))
    assert given == {"WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"}
