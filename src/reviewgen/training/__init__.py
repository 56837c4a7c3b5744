"""Training: ``fit`` yields a report per step of training by gradient or by counting.

    report       budget, step reports, and the verdict on a finished run
    loop         ``fit``; training by gradient: the steps, and the state of a run
    counting     training by counting
    evaluator    held-out evaluation, token copy rate and samples during training
    softmax      the softmax over a sample of the vocabulary
    calibration  one temperature, fitted on held-out text at the end
    optimizing   the loss, the optimizers, the learning rate, and the guard against NaN or infinite
                 losses
    device       the device, the precision, and random numbers of a run's own
    memory       how malloc and torch allocate memory while a run trains
    autotuning   threads, precision and implementation, by timing steps
    sizing       the size of a model for a time budget, likewise
    checkpoints  a run's state on disk

Logging, printing and plotting are ordinary code around the loop. When the loop ends, for any
reason, the model has its best weights, is in evaluation mode and on the CPU. Recurrent models are
trained on B lanes of one long stream and carry their state from step to step (truncated
back-propagation through time, Williams & Peng 1990) of a fixed length, ``bptt``, or of random ones
around it.
"""
