"""Training runs, from a plan to a saved model and its record, and the public functions that train,
search, blend or read a corpus.

    setup    the plugins, settings and trained weights that a run starts from
    plan     the keywords of a training, and everything that is decided before anything is read
    reading  how the corpus of a plan is read; checks that a prepared token store fits the plan
    corpus   reads a corpus, then tokenizes and indexes it, also for several runs;
             ``reviewgen.corpus``
    record   the reports so far, the learning curves and the results of the measurements;
             training.json
    measure  the measurements at the end of a run
    build    builds the model, in the size that a time budget allows
    train_blend  trains the models of a blend in turn, and fits the blend's weights
    saver    saves the checkpoints of a run, from which it is resumed, and its model
    run      ``TrainingRun``: read, tokenize, iterate for reports, finish; a blend has a run for
             each of its models
    display  the progress on a terminal or in a notebook
    tracking the log in a tracker
    plotting ``reviewgen.plot_training``
    blend    ``reviewgen.blend``
    trials   trainings that differ in some settings, on corpora that are prepared once
    trial_store  the finished trials of an experiment in a file
    sweep    ``reviewgen.sweep``: trainings with several values of one setting
    ablate   ``reviewgen.ablate``: trainings without one technique at a time
    tune     ``reviewgen.tune``: a search for the best settings
    tune_sampling  ``reviewgen.tune_sampling``: compares the texts that generation settings give
                   with human texts
"""
