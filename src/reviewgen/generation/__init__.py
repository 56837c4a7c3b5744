"""Generation: from the keywords of ``generate`` to the sampled tokens and the returned texts.

    request        checks the arguments of one call
    generator      generates the texts of a call with one model, and makes the returned objects
    text           one text: its tokens, its random stream, and where it ends
    detokenizer    decides which characters of a text may be shown while it is generated, and gives
                   the log probabilities of its tokens
    decode         the decoding loop: one token at a time, or many if the stepper has a loop of its
                   own
    beams          beam search
    pieces         the text of each token, how a prompt is split, and which words texts may contain
    hooks          logits processors, stopping criteria and streamers, as transformers calls them
    next_tokens    the most probable next tokens, and a text that a user extends or shortens step by
                   step
    states         combines the states of several texts into one, and selects rows
    model_stepper  a Stepper for any model, which calls the model; imports torch

A request reaches a sampled token through these functions: ``generator.Generator.generate``, then
``decode.Decoder.decode``, then the stepper's ``sample`` (for most models this is
``reviewgen.compiled.decoding.sample``), then ``reviewgen.compiled.sampling.choose``. This room must
not know bundles or evaluation: the function that scores a text is passed in.
"""
