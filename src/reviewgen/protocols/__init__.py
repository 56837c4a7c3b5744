"""The contracts between the core and its plugins: LanguageModel, Stepper, Tokenizer and their companions, processors, metrics.

A plugin implements one of them; the ``Supports...`` protocols are optional abilities, which the core finds with
``isinstance``. ``reviewgen.testing`` checks that an implementation keeps its contract. ``API_VERSION`` is the version of all of
them; a plugin declares the one it is written for in its package's metadata, or as ``api_version: ClassVar[str]`` of its class.

    model       LanguageModel: is trained; torch tensors in and out
    abilities   its own loss, optimizer settings and foreign weights
    graph       its computational graph, for pictures
    operations  what a model computes, one operation after the other
    migration   configs that an earlier version of a plugin has saved
    stepper     Stepper: generates; NumPy arrays in and out, without torch
    tokenizer   Tokenizer: text to ids and back
    processor   LogitsProcessorFactory: changes the scores of the next token in generation
    ranges      how several processes finish a model that is trained by counting
    reader      Reader: the records of files of another format
    metric      Metric: a number of generated texts, at each evaluation of a training

Each name is imported on first use, so that a stepper does not load torch.
"""

from typing import TYPE_CHECKING

import lazy_loader

from reviewgen.version import API_VERSION

if TYPE_CHECKING:
    from reviewgen.protocols.abilities import (
        SupportsInitialWeights,
        SupportsLoss,
        SupportsParameterGroups,
        is_embedding_table,
    )
    from reviewgen.protocols.graph import GraphEdge, GraphNode, ModelGraph, SupportsGraph
    from reviewgen.protocols.metric import Metric, TextSample
    from reviewgen.protocols.migration import SupportsMigration
    from reviewgen.protocols.model import (
        CountTrained,
        LanguageModel,
        State,
        SupportsCountMerge,
        SupportsDevices,
        SupportsImplementations,
        SupportsScore,
        SupportsStep,
    )
    from reviewgen.protocols.operations import Operation, SupportsOperations
    from reviewgen.protocols.processor import LogitsProcessor, LogitsProcessorFactory
    from reviewgen.protocols.ranges import CountGroup, SupportsCountRanges
    from reviewgen.protocols.reader import Reader, Records
    from reviewgen.protocols.stepper import (
        DEAD_END,
        NONE,
        NOT_A_NUMBER,
        NOTHING_LEFT,
        Constraints,
        CountedContext,
        Stepper,
        StepperFactory,
        StepState,
        SupportsCompiledStep,
        SupportsExplain,
        SupportsSample,
        TensorSpec,
    )
    from reviewgen.protocols.tokenizer import (
        SupportsEncodeBatch,
        SupportsTokenBytes,
        SupportsTokenizerJson,
        SupportsTrainingInParts,
        Tokenizer,
    )

__all__ = [
    "API_VERSION",
    "DEAD_END",
    "NONE",
    "NOTHING_LEFT",
    "NOT_A_NUMBER",
    "Constraints",
    "CountGroup",
    "CountTrained",
    "CountedContext",
    "GraphEdge",
    "GraphNode",
    "LanguageModel",
    "LogitsProcessor",
    "LogitsProcessorFactory",
    "Metric",
    "ModelGraph",
    "Operation",
    "Reader",
    "Records",
    "State",
    "StepState",
    "Stepper",
    "StepperFactory",
    "SupportsCompiledStep",
    "SupportsCountMerge",
    "SupportsCountRanges",
    "SupportsDevices",
    "SupportsEncodeBatch",
    "SupportsExplain",
    "SupportsGraph",
    "SupportsImplementations",
    "SupportsInitialWeights",
    "SupportsLoss",
    "SupportsMigration",
    "SupportsOperations",
    "SupportsParameterGroups",
    "SupportsSample",
    "SupportsScore",
    "SupportsStep",
    "SupportsTokenBytes",
    "SupportsTokenizerJson",
    "SupportsTrainingInParts",
    "TensorSpec",
    "TextSample",
    "Tokenizer",
    "is_embedding_table",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "abilities": ["SupportsInitialWeights", "SupportsLoss", "SupportsParameterGroups", "is_embedding_table"],
        "graph": ["GraphEdge", "GraphNode", "ModelGraph", "SupportsGraph"],
        "metric": ["Metric", "TextSample"],
        "reader": ["Reader", "Records"],
        "migration": ["SupportsMigration"],
        "model": [
            "CountTrained",
            "LanguageModel",
            "State",
            "SupportsCountMerge",
            "SupportsDevices",
            "SupportsImplementations",
            "SupportsScore",
            "SupportsStep",
        ],
        "operations": ["Operation", "SupportsOperations"],
        "processor": ["LogitsProcessor", "LogitsProcessorFactory"],
        "ranges": ["CountGroup", "SupportsCountRanges"],
        "stepper": [
            "Constraints",
            "CountedContext",
            "DEAD_END",
            "NONE",
            "NOTHING_LEFT",
            "NOT_A_NUMBER",
            "StepState",
            "Stepper",
            "StepperFactory",
            "SupportsCompiledStep",
            "SupportsExplain",
            "SupportsSample",
            "TensorSpec",
        ],
        "tokenizer": [
            "SupportsEncodeBatch",
            "SupportsTokenBytes",
            "SupportsTokenizerJson",
            "SupportsTrainingInParts",
            "Tokenizer",
        ],
    },
)
