"""The recurrent language models rnn, gru and lstm.

The equations of a cell are written in three places, each for one purpose:

    rnn, gru, lstm  to read and to change: one step in plain operations of torch. It runs with
                    ``layer="reference"``, and ``explain`` shows its results.
    compiled_layer  training on a CPU: the same step and its gradient, in compiled loops
    kernels         generation without torch: the same step, in compiled loops

``layer="fused"`` is torch's own layer, and ``web_stepper.js`` is ``kernels`` for a browser.
``tests/plugins/test_operations.py`` compares the first with equations written out by hand,
``test_recurrent.py`` the first two with torch's layers (and the gradients with finite differences),
and ``test_steppers.py`` and the laws of ``reviewgen.testing`` the third with the model's own call.

Around the cells, ``network`` has embedding, output layer and states, ``layers`` runs a stack of
them, ``stepping`` packs the weights for ``kernels``, and ``graph`` draws.
"""

from pathlib import Path

WEB_STEPPER = Path(__file__).with_name("web_stepper.js")
