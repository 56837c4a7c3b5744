"""The contracts between the core and its plugins: LanguageModel, Stepper, Tokenizer and their
companions, processors, metrics.

A plugin implements one of them; the ``Supports...`` protocols are optional abilities, which the
core finds with ``isinstance``. ``reviewgen.testing`` checks that an implementation keeps its
contract. ``API_VERSION`` is the version of all of them; a plugin declares the one it is written for
in its package's metadata, or as ``api_version: ClassVar[str]`` of its class.

    model       LanguageModel: is trained; torch tensors in and out
    abilities   its own loss, optimizer settings and foreign weights; what it computes, one
                operation after the other
    inputs      errors about shapes that name the letters; the vector of conditions and fields, for
                models that hold it
    graph       its computational graph, for pictures
    migration   configs that an earlier version of a plugin has saved
    stepper     Stepper: generates; NumPy arrays in and out, without torch
    tokenizer   Tokenizer: text to ids and back
    ranges      how several processes finish a model that is trained by counting
    extensions  LogitsProcessorFactory: changes the scores of the next token in generation; Metric:
                a number measured on generated texts, at each evaluation of a training; Reader: the
                records of files of another format

Each name is imported on first use, so that a stepper does not load torch.
"""

import lazy_loader

from reviewgen.version import API_VERSION

__getattr__, __dir__, _names = lazy_loader.attach_stub(__name__, __file__)
__all__ = ["API_VERSION", *_names]
