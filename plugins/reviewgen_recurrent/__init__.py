"""The recurrent language models rnn, gru and lstm.

The equations of a cell are written in three places, each for one purpose:

    rnn, gru, lstm  to read and to change: one step in plain operations of torch. It runs with
                    ``layer="reference"``, and ``explain`` shows its results.
    compiled_layer  training on a CPU: the same step and its gradient, in compiled loops
    kernels         generation without torch: the same step, in compiled loops

``layer="fused"`` is torch's own layer, and ``web_stepper.js`` is ``kernels`` for a browser.
Tests keep the three equal. ``tests/plugins/test_operations.py`` compares the first with equations
written out by hand. ``test_recurrent.py`` compares the first two with torch's layers, and the
gradients with finite differences. ``test_steppers.py`` and the laws of ``reviewgen.testing``
compare the third with a call of the model.

The other files: ``network`` has the embedding, the output layer and the states; ``pointer`` copies
tokens of the text; ``layers`` runs a stack of recurrent layers; ``config`` has the settings;
``stepping`` packs the weights for ``kernels``; and ``graph`` describes the computational graph.
"""

from pathlib import Path

WEB_STEPPER = Path(__file__).with_name("web_stepper.js")
