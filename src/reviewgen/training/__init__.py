"""Training: ``fit`` trains a model by gradient or by counting, and yields a report for each step.

    report       budget, step reports, and the verdict on a finished run
    loop         ``fit``; training by gradient: steps, evaluations and the state of a run
    step         an optimizer step, and the guard against NaN or infinite losses
    losses       the cross entropy, and a model's own loss terms
    optimizers   AdamW, Muon and an optimizer of table rows as one
    schedule     the learning rate, and when to evaluate and to end
    counting     training by counting
    evaluator    held-out evaluation, token copy rate and samples during training
    softmax      the softmax over a sample of the vocabulary
    calibration  the temperature of the final model, fitted on held-out text
    device       the device, the precision and the ``Accelerator`` of a run; isolated random numbers
    memory       how malloc and torch allocate memory while a run trains
    autotuning   choose threads, precision and implementation by timing steps
    sizing       choose the size of a model for a time budget by timing steps
    checkpoints  a run's state on disk

Logging, printing and plotting are ordinary code around the loop. When the loop ends, for any
reason, the model has its best weights, is in evaluation mode and on the CPU. Recurrent models are
trained by truncated back-propagation through time (Williams & Peng 1990): the batches are B lanes
of one long stream of texts, and the hidden state is carried from step to step. A batch has ``bptt``
tokens of each lane, or a random number of tokens around ``bptt``.
"""
