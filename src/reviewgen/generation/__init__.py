"""Generation: from the keywords of ``generate`` to the sampled tokens and the returned texts.

    request        the arguments of one call, checked
    generator      texts of one model: many, one as a stream, or texts that must include some words;
                   the returned objects
    text           one text: its tokens, its random stream, and where it ends
    detokenizer    what may be shown of a text while it is generated, and the log probabilities of
                   its tokens
    decode         the decoding loop: token by token, or in blocks where the stepper has a loop of
                   its own
    beams          beam search
    pieces         the texts of a tokenizer's tokens, how a prompt is split, and the words that
                   texts are made of
    hooks          logits processors, stopping criteria and streamers, as transformers calls them
    next_tokens    the most probable next tokens, and a text that a user extends and undoes step by
                   step
    states         the states of several texts as one
    model_stepper  a Stepper for any model, through its call; imports torch

A request's way to a sampled token: ``generator.Generator.generate``, ``decode.Decoder.decode``, the
stepper's ``sample``, which is ``reviewgen.compiled.decoding.sample`` for most models, and
``reviewgen.compiled.sampling.choose``. Knows neither bundle nor evaluation: what scores a text is
passed in.
"""
