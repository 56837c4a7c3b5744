"""The commands of the page on many machines run on two of them, which share nothing but a folder."""

import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import reviewgen
from tests.support.fakes import TEXTS
from tests.support.launches import made_once
from tests.support.machines import machines, why_no_machines

PAGE = (Path(__file__).parents[2] / "docs/how-to/multi-machine.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(bash|sh|yaml)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
QUICK = " --steps 2 --set training.evaluations=1 --set training.copy_tokens=0 --set training.threads=1 --set model.hidden_size=8"
needs_machines = pytest.mark.skipif(why_no_machines() is not None, reason=str(why_no_machines()))


def block(language: str, word: str) -> str:
    """Return the only block of the page in a language that has a word."""
    (text,) = [text for name, text in BLOCKS if name == language and word in text]
    return text


def job() -> dict[str, Any]:
    """Return the Kubernetes object of the page."""
    loaded: dict[str, Any] = yaml.safe_load(block("yaml", "PyTorchJob"))
    return loaded


def commands(main_address: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the commands of the page, each with the variables of its cluster; ``{rank}`` is the number of the machine."""
    plain = block("bash", "--num_machines 2").replace("ADDRESS", main_address).replace("--num_processes 8", "--num_processes 2")
    (slurm,) = re.findall(r"^srun sh -c '(.*?)'$", block("sh", "srun"), re.MULTILINE | re.DOTALL)
    (container,) = job()["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    (pod,) = container["args"]
    address = {"MASTER_ADDR": main_address, "MASTER_PORT": 29500, "WORLD_SIZE": 2, "RANK": "{rank}"}
    alone = "python -m reviewgen train gru-char --data /shared/reviews.csv --out /shared/plain"
    return {
        "my-cluster": (plain, {}),
        "my-slurm": (slurm, {"SLURM_NNODES": 2, "SLURM_NODEID": "{rank}", "GPUS": 1, "FIRST": main_address}),
        "my-job": (pod, address),
        "plain": (alone, address | {"LOCAL_RANK": 0}),
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run all commands on two machines."""
    folder = made_once(tmp_path_factory, "machines", _work)
    return SimpleNamespace(folder=folder, shared=folder / "shared", said=json.loads((folder / "said.json").read_text()))


def _work(folder: Path) -> None:
    shared, said = folder / "shared", {}
    shared.mkdir()
    with machines(folder) as both:
        for place in (shared, *(machine.folder for machine in both)):
            (place / "reviews.csv").write_text("review\n" + "\n".join(TEXTS), encoding="utf-8")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        for name, (command, variables) in commands(both[0].main_address).items():
            words = re.sub(r"(--out \S+)", rf"\1{QUICK}", command.replace("/shared", str(shared)))
            running = []
            for machine in both:
                own = {key: str(value).format(rank=machine.rank) for key, value in variables.items()} | {"PATH": path}
                own_words = words.replace("--machine_rank 0", f"--machine_rank {machine.rank}")
                running.append(machine.start("sh", "-c", own_words, **own))
            said[name] = [[each.wait(180), each.said()] for each in running]
    (folder / "said.json").write_text(json.dumps(said))


@needs_machines
@pytest.mark.launch
@pytest.mark.parametrize("name", commands(""))
def test_the_commands_of_the_page_train_on_two_machines(name: str, cluster: Any) -> None:
    (first, said), (second, other) = cluster.said[name]
    assert (first, second) == (0, 0), said + other
    folder = cluster.folder / "machine-0" if name == "my-cluster" else cluster.shared
    assert reviewgen.load(folder / name).training["steps"] == 2
    assert "Saved in" in said and "Saved in" not in other
    for machine in ("machine-0", "machine-1"):
        assert list((cluster.folder / machine / "cache").iterdir()), "each machine has its own cache"


def test_the_kubernetes_job_of_the_page_has_what_the_operator_needs() -> None:
    loaded = job()
    assert (loaded["apiVersion"], loaded["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    replicas = loaded["spec"]["pytorchReplicaSpecs"]
    assert set(replicas) == {"Master", "Worker"} and replicas["Master"]["replicas"] == 1
    for each in replicas.values():
        assert each["restartPolicy"] in ("Always", "OnFailure", "Never", "ExitCode")
        pod = each["template"]["spec"]
        (container,) = pod["containers"]
        assert container["name"] == "pytorch"  # the operator sets the variables in the container of this name
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert set(re.findall(r"\$(\w+)", container["args"][0])) == {"WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"}
    assert re.findall(r"^export (\w+)=", block("sh", "srun"), re.MULTILINE) == ["GPUS", "FIRST"]
