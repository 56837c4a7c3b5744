"""What accelerate is given: one optimizer in place of several, and one mixed precision for each
process.
"""

import copy
import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader

from reviewgen.config.training import TrainingConfig
from reviewgen.errors import TrainingError
from reviewgen.training.device import choose_precision, make_accelerator
from reviewgen.training.optimizers import JointOptimizer, make_optimizer, set_learning_rate
from tests.support.forked import run_group
from tests.support.launches import CPU
from tests.support.trainings import prepared


def two_optimizers() -> tuple[list[nn.Parameter], JointOptimizer]:
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(2)]
    return parameters, JointOptimizer([torch.optim.SGD([each], lr=1.0) for each in parameters])


def test_a_joint_optimizer_is_unscaled_and_stepped_once():
    parameters, optimizer = two_optimizers()
    accelerator = make_accelerator()
    accelerator.scaler = torch.amp.GradScaler("cpu")
    prepared: Any = accelerator.prepare_optimizer(optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        accelerator.backward(sum(parameter.sum() for parameter in parameters))
        accelerator.scaler.unscale_(prepared.optimizer)
        prepared.step()
    assert [parameter.tolist() for parameter in parameters] == [[-3.0, -3.0]] * 2
    assert accelerator.scaler.state_dict()["_growth_tracker"] == 3


def test_a_joint_optimizer_sets_the_rates_of_its_optimizers_also_after_it_was_loaded():
    _, optimizer = two_optimizers()
    optimizer.load_state_dict(optimizer.state_dict())
    set_learning_rate(optimizer, 0.25)
    assert [each.param_groups[0]["lr"] for each in optimizer.optimizers] == [0.25, 0.25]


def test_a_joint_optimizer_goes_on_where_it_was_saved():
    def train(model: nn.Module, optimizer: JointOptimizer, steps: range) -> None:
        for step in steps:
            optimizer.zero_grad()
            model(torch.tensor([step % 5, step % 3])).square().sum().backward()
            optimizer.step()

    config = TrainingConfig()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 4, sparse=True), nn.Linear(4, 6), nn.Linear(6, 3))
    first = make_optimizer(model, config)
    assert len(first.optimizers) == 3  # AdamW for the vectors, Muon, and rows of the table
    train(model, first, range(10))
    saved = copy.deepcopy((model.state_dict(), first.state_dict()))
    train(model, first, range(10, 20))
    expected = copy.deepcopy(model.state_dict())
    model.load_state_dict(saved[0])
    second = make_optimizer(model, config)
    second.load_state_dict(saved[1])
    train(model, second, range(10, 20))
    assert all(torch.equal(expected[name], tensor) for name, tensor in model.state_dict().items())


def test_another_mixed_precision_in_the_same_process_is_refused():
    assert make_accelerator("bf16").mixed_precision == "bf16"
    assert make_accelerator("no").mixed_precision == "bf16"  # it leaves autocast out
    with pytest.raises(TrainingError, match=r"which is bf16 here: train in fp16 in a new process"):
        make_accelerator("fp16")


def test_an_accelerator_of_the_caller_s_in_32_bits_is_kept():
    code = """
import torch
from accelerate import Accelerator
from reviewgen.training.device import choose_precision, make_accelerator

torch.cpu.get_capabilities = lambda: {"avx512_bf16": True}
print(choose_precision("auto", "cpu"))
Accelerator()
print(choose_precision("auto", "cpu"), make_accelerator().mixed_precision)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["bf16", "no", "no"]


def test_a_device_other_than_the_process_s_is_trained_on_in_32_bits():
    assert choose_precision("auto", "xpu") == "no"
    with pytest.raises(TrainingError, match=r"bf16 is not available on xpu.*computes on cpu"):
        choose_precision("bf16", "xpu")


def test_an_accelerator_of_the_caller_s_is_not_changed_by_a_training_and_does_not_change_it():
    def accumulating() -> Any:
        return prepared(steps=6, training={"gradient_accumulation_steps": 3, "evaluations": 1})

    expected = [report.nats_per_token for report in accumulating()]
    mine = Accelerator(gradient_accumulation_steps=4)
    weight = nn.Parameter(torch.zeros(1))
    optimizer = mine.prepare(torch.optim.SGD([weight], lr=1.0))
    loader = mine.prepare(DataLoader(list(range(6)), batch_size=1))
    losses = []
    reports = iter(accumulating())
    for _ in loader:  # its end makes its accelerators synchronize
        losses.append(next(reports).nats_per_token)
        with mine.accumulate():
            mine.backward(weight.sum())
            optimizer.step()
            optimizer.zero_grad()
    assert losses == expected
    assert mine.gradient_accumulation_steps == 4
    assert weight.item() == -1.5  # a step after 4 batches, and one after the last 2


SUMS = """
import json, os
import torch
from torch import nn
from reviewgen.processes import all_processes
from reviewgen.training.device import make_accelerator
from reviewgen.training.optimizers import sum_rows

used = {"both": ([0, 2], [2, 3]), "one": ([1], []), "none": ([], []), "dense": ([4], [4])}
with all_processes() as processes:
    accelerator = make_accelerator()
    sums = {}
    for name, rows in used.items():
        table = nn.Embedding(5, 2, sparse=name != "dense")
        if rows[processes.rank]:
            table(torch.tensor(rows[processes.rank])).sum().backward()
        sums[name] = sum_rows(accelerator, table.weight).to_dense()[:, 0].tolist()
    print(json.dumps(sums))
"""


def test_rows_of_tables_are_summed_also_if_a_process_has_used_none(tmp_path):
    env = os.environ | CPU | {"REVIEWGEN_CACHE": str(tmp_path)}
    group = run_group(["-c", SUMS], 2, cwd=tmp_path, env=env)
    assert [done.returncode for done in group] == [0, 0], [done.stderr for done in group]
    assert not any("invariant" in done.stderr for done in group)
    for done in group:
        assert json.loads(done.stdout.splitlines()[-1]) == {
            "both": [1, 0, 2, 1, 0],
            "one": [0, 1, 0, 0, 0],
            "none": [0, 0, 0, 0, 0],
            "dense": [0, 0, 0, 0, 2],
        }


def test_an_unknown_precision_of_the_launcher_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "banana")
    with pytest.raises(TrainingError, match=r"is 'banana'; it must be no, bf16 or fp16"):
        choose_precision("auto", "cpu")
