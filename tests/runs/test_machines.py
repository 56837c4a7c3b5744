"""Two machines that share nothing but a folder do what one does, as the page on many machines starts them."""

import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

import reviewgen
from tests.support.fakes import TEXTS
from tests.support.launches import made_once
from tests.support.machines import machines, why_no_machines

PAGE = (Path(__file__).parents[2] / "docs/how-to/multi-machine.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(bash|sh|yaml)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
QUICK = " --steps 2 --set training.evaluations=1 --set training.copy_tokens=0 --set training.threads=1 --set model.hidden_size=8"
TRAINING = {"learning_rate": 0.001, "bptt": 16, "precision": "no", "threads": 1, "evaluations": 4, "copy_tokens": 0}
TRAINING |= {"novelty": "none", "optimizer": "adamw"}  # Muon of torch rounds gradients to bfloat16: differences grow
MODEL = {"hidden_size": 12, "embedding_size": 6, "layer": "fused"}
NGRAM = {"order": 4}

needs_machines = pytest.mark.skipif(why_no_machines() is not None, reason=str(why_no_machines()))

JOB = """
import json, os, signal, sys, time
from functools import partial

rank = int(os.environ["RANK"])
if rank:  # a clock that is hours behind, in another time zone
    os.environ["TZ"] = "Pacific/Auckland"
    time.tzset()
    for name, shift in (("time", -10_000.0), ("monotonic", 1e6)):
        setattr(time, name, partial(lambda clock, shift: clock() + shift, getattr(time, name), shift))

from reviewgen.cli import main
from reviewgen.registry import find_model

shared, is_elastic = sys.argv[1], sys.argv[2] == "restart"
training, model, ngram = json.load(open(f"{shared}/settings.json"))

def command(name, *words):
    sys.argv[1:] = words
    try:
        main()
        status = 0
    except SystemExit as end:
        status = end.code
    with open(f"{name}.json", "w") as file:
        json.dump(status, file)
    return status

def setting(group, values):
    return [word for name, value in values.items() for word in ("--set", f"{group}.{name}={value}")]

gru = ["train", "gru-char", "--set", "training.batch_size=3", *setting("training", training), *setting("model", model)]
gru += ["--data", f"{shared}/store"]
if is_elastic:
    if rank and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        kind = find_model("gru")[0]
        forward, calls = kind.forward, []
        def killed(self, *args):
            calls.append(0)
            if len(calls) == 12:
                os.kill(os.getpid(), signal.SIGKILL)
            return forward(self, *args)
        kind.forward = killed
    seconds = ["--set", "training.checkpoint_seconds=0.001"]
    sys.exit(command("restart", *gru, *seconds, "--steps", "30", "--out", f"{shared}/restarted"))
data = f"{shared}/reviews.txt"
command("prepare", "prepare", data, "--preset", "gru-char", "--out", f"{shared}/store")
command("train", *gru, "--epochs", "1", "--out", f"{shared}/gru")
counting = [*setting("model", ngram), "--set", "training.novelty=none"]
command("count", "train", "ngram-char", *counting, "--data", data, "--out", f"{shared}/ngram")
words = ["-n", "60", "--seed", "5", "--columns", "--max-new-tokens", "30", "--format", "jsonl", "--out", f"{shared}/texts"]
command("generate", "generate", f"{shared}/ngram", *words)
size = ["--set", f"tokenizer.vocab_size={500 + rank}"]
command("tokenizers", "prepare", data, "--preset", "gru-word", "--out", f"{shared}/no", *size)
command("seeds", *gru, "--epochs", "1", "--out", f"{shared}/no", "--seed", str(rank))
"""


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
    (shared / "reviews.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    (shared / "settings.json").write_text(json.dumps([TRAINING, MODEL, NGRAM]))
    (folder / "job.py").write_text(JOB, encoding="utf-8")
    elastic = ("--rdzv_backend", "c10d", "--max_restarts", "3")
    with machines(folder) as both:
        for action, options in (("all", ()), ("restart", elastic)):
            words = [str(folder / "job.py"), str(shared), action]
            own = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
            running = [machine.launch(*words, options=options, **own) for machine in both]
            said[action] = [[each.wait(180), each.said()] for each in running]
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


def content_of(folder: Path) -> dict[str, Any]:
    """Return the files of a folder, other than those that name it or the time."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix not in (".json", ".md")}


@needs_machines
@pytest.mark.launch
def test_they_prepare_count_and_generate_what_one_machine_does(cluster: Any, tmp_path: Path) -> None:
    data = str(cluster.shared / "reviews.txt")
    reviewgen.prepare(data, preset="gru-char", out=tmp_path / "store")
    assert content_of(cluster.shared / "store") == content_of(tmp_path / "store") != {}
    reviewgen.train("ngram-char", data, model=NGRAM, training={"novelty": "none"}, out=tmp_path / "ngram")
    name = "ngram/model.safetensors"
    assert (cluster.shared / name).read_bytes() == (tmp_path / name).read_bytes()
    options: Any = {"seed": 5, "columns": True, "max_new_tokens": 30, "format": "jsonl", "out": cluster.shared / "alone"}
    reviewgen.generate_dataset(cluster.shared / "ngram", 60, **options)
    assert content_of(cluster.shared / "texts") == content_of(cluster.shared / "alone") != {}
    for machine in ("machine-0", "machine-1"):
        assert list((cluster.folder / machine / "cache").iterdir()), "each machine has its own cache"


@needs_machines
@pytest.mark.launch
@pytest.mark.parametrize(("name", "length"), [("gru", {"epochs": 1}), ("restarted", {"steps": 30})])
def test_they_train_as_one_machine_also_if_a_process_is_killed(name: str, length: Any, cluster: Any) -> None:
    settings = TRAINING | {"batch_size": 6}
    one = reviewgen.train("gru-char", str(cluster.shared / "store"), model=MODEL, training=settings, **length)
    both = json.loads((cluster.shared / name / "training.json").read_text())
    assert both["steps"] == one.training["steps"] > 12
    for key in ("train_nats_per_token", "bits_per_character", "tokens"):
        curve, expected = ([at[key] for at in each["evaluations"]] for each in (both, one.training))
        assert curve == pytest.approx(expected, abs=1e-5) and len(curve) > 2
    weights = load_file(cluster.shared / name / "model.safetensors")
    for key, expected in one.model.state_dict().items():
        assert weights[key].numpy() == pytest.approx(expected.numpy(), abs=2e-4), key  # rounding grows from step to step
    (status, said), (other, _) = cluster.said["restart"]
    assert (status, other) == (0, 0) and "The run resumes from step" in said


@needs_machines
@pytest.mark.launch
def test_differences_between_machines_are_reported_by_one_of_them(cluster: Any) -> None:
    said = "".join(text for _, text in cluster.said["all"])
    assert said.count("The processes have different settings: the seed.") == 1
    assert said.count("The processes have different settings: tokenizer settings.") == 1
    assert said.count("error: ") == 2 and "Traceback" not in said, said
    for machine in ("machine-0", "machine-1"):
        files = {file.stem: file for file in (cluster.folder / machine).glob("*.json")}
        status = {name: json.loads(files[name].read_text()) for name in ("train", "seeds", "tokenizers")}
        assert status["train"] == 0 and {status["seeds"], status["tokenizers"]} <= {1, 2}
    assert not (cluster.shared / "no").exists()


@needs_machines
@pytest.mark.launch
@pytest.mark.parametrize("name", commands(""))
def test_the_commands_of_the_page_train_on_two_machines(name: str, cluster: Any) -> None:
    (first, said), (second, other) = cluster.said[name]
    assert (first, second) == (0, 0), said + other
    folder = cluster.folder / "machine-0" if name == "my-cluster" else cluster.shared
    assert reviewgen.load(folder / name).training["steps"] == 2
    assert "Saved in" in said and "Saved in" not in other


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
