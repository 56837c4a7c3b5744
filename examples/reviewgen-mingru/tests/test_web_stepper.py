"""The stepper in JavaScript, run by Node, beside the stepper in Python."""

import json
import shutil
import subprocess
from importlib.metadata import entry_points

import numpy as np
import pytest
import torch
from reviewgen_mingru import WEB_STEPPER
from reviewgen_mingru.config import MinGruConfig, MinLstmConfig
from reviewgen_mingru.model import MinGru, MinLstm

from reviewgen.web.composing import static_files

NODE = shutil.which("node")
MODELS = {"mingru": (MinGru, MinGruConfig), "minlstm": (MinLstm, MinLstmConfig)}
SCRIPT = """
import { readFileSync } from "node:fs";
const { name, config, tensors, pieces } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const { createTensor } = await import(process.argv[3]);
const toTensor = ({ shape, data }) => createTensor(shape, Float32Array.from(data));
const given = Object.entries(tensors).map(([key, tensor]) => [key, toTensor(tensor)]);
const stepper = createStepper(name, config, Object.fromEntries(given));
let state = stepper.initialState();
const logits = pieces.map((ids) => {
  const step = stepper.forward(ids, state);
  const again = stepper.forward(ids, state);
  if (String(again.logits) !== String(step.logits)) throw new Error("The state was changed.");
  state = step.state;
  return Array.from(step.logits);
});
console.log(JSON.stringify(logits));
"""


@pytest.mark.skipif(NODE is None, reason="node is not installed")
@pytest.mark.parametrize(
    "settings", [{}, {"window": 1, "layers": 1}, {"hidden_size": 70, "layers": 3}], ids=str
)
@pytest.mark.parametrize("name", MODELS)
def test_logits_in_javascript_equal_those_in_python(name, settings, tmp_path):
    kind, config = MODELS[name]
    torch.manual_seed(0)
    model = kind(config(**{"vocab_size": 11, "hidden_size": 24, **settings})).eval()
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.3 * torch.randn_like(weights))
    pieces = [[3, 1, 4, 1, 5], [9], [2, 6, 5, 3, 5, 8, 9, 7, 9], [3]]
    tensors = {
        key: {"shape": list(t.shape), "data": t.flatten().tolist()}
        for key, t in model.state_dict().items()
    }
    request = {"name": name, "config": vars(model.config), "tensors": tensors, "pieces": pieces}
    (tmp_path / "request.json").write_text(json.dumps(request))
    (tmp_path / "run.mjs").write_text(
        WEB_STEPPER.read_text(encoding="utf-8") + SCRIPT, encoding="utf-8"
    )
    shutil.copy(static_files()["tensors.js"], tmp_path / "tensors.mjs")
    command = [NODE, "run.mjs", "request.json", "./tensors.mjs"]
    printed = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    stepper = model.stepper()
    state = stepper.initial_state(1)
    for ids, found in zip(pieces, json.loads(printed), strict=True):
        expected, state = stepper.forward(np.array([ids]), state)
        np.testing.assert_allclose(found, expected[0], atol=1e-4)


def test_the_package_registers_it():
    points = {point.name: point for point in entry_points(group="reviewgen.web_steppers")}
    assert all(points[name].load() == WEB_STEPPER and WEB_STEPPER.is_file() for name in MODELS)
