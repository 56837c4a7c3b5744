"""The contracts between the core and its plugins: models, steppers, tokenizers, logits processors,
metrics and readers.

A plugin implements one of these protocols. The ``Supports...`` protocols are optional abilities;
the core detects them with ``isinstance``. ``reviewgen.testing`` checks that an implementation keeps
its contract. All protocols share one version, ``API_VERSION``. A plugin declares the version that
it is written for in the metadata of its package, or as ``api_version: ClassVar[str]`` of its class.

    model       LanguageModel: is trained; takes and returns torch tensors
    abilities   optional abilities of a model: its own loss, optimizer settings, weights from other
                libraries, the list of operations that it computes
    inputs      checks of shapes, whose errors name each axis by its letter; the vector of
                conditions and fields, for models that keep it in their state
    graph       the computational graph of a model, for pictures
    migration   reads configs that an earlier version of a plugin has saved
    arpa        SupportsArpa: a stepper that can be written as an ARPA file, and read from one
    stepper     Stepper: generates; takes and returns NumPy arrays, without torch
    tokenizer   Tokenizer: text to ids and back
    checks      the laws that a third party's model must keep to be trained
    ranges      how several processes finish a model that is trained by counting
    extensions  LogitsProcessorFactory: makes a function that changes the scores of the next token,
                or a TokenAutomaton, which says what texts must look like; Metric: a number that is
                measured on generated texts, at each evaluation of a training; Reader: reads the
                records of files of another format

The names of ``model``, ``abilities`` and ``inputs`` are imported on first use. So code that needs
only the protocol of steppers does not load torch.
"""

from typing import TYPE_CHECKING

from reviewgen.lazy import import_on_first_use
from reviewgen.protocols.arpa import ArpaNgrams, SupportsArpa
from reviewgen.protocols.extensions import (
    LogitsProcessor,
    LogitsProcessorFactory,
    Metric,
    Reader,
    Records,
    TextSample,
    TokenAutomaton,
)
from reviewgen.protocols.graph import GraphEdge, GraphNode, ModelGraph, SupportsGraph
from reviewgen.protocols.migration import SupportsMigration, SupportsTransformers
from reviewgen.protocols.ranges import CountGroup, SingleProcess, SupportsCountRanges
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
    SupportsContributions,
    SupportsExpertForward,
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
from reviewgen.version import API_VERSION

if TYPE_CHECKING:
    from reviewgen.protocols.abilities import (
        Copies,
        Operation,
        SupportsInitialWeights,
        SupportsLoss,
        SupportsOperations,
        SupportsOutputLayer,
        SupportsParameterGroups,
        SupportsParameterKinds,
        SupportsPointer,
        SupportsScaledLogits,
        count_by_module,
        is_embedding_table,
        match_tensors,
    )
    from reviewgen.protocols.inputs import hold_given
    from reviewgen.protocols.model import (
        CountTrained,
        LanguageModel,
        State,
        SupportsCountMerge,
        SupportsDevices,
        SupportsExpert,
        SupportsImplementations,
        SupportsScore,
        SupportsStep,
    )

__all__ = [
    "API_VERSION",
    "DEAD_END",
    "NONE",
    "NOTHING_LEFT",
    "NOT_A_NUMBER",
    "ArpaNgrams",
    "Constraints",
    "Copies",
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
    "SingleProcess",
    "State",
    "StepState",
    "Stepper",
    "StepperFactory",
    "SupportsArpa",
    "SupportsCompiledStep",
    "SupportsContributions",
    "SupportsCountMerge",
    "SupportsCountRanges",
    "SupportsDevices",
    "SupportsEncodeBatch",
    "SupportsExpert",
    "SupportsExpertForward",
    "SupportsExplain",
    "SupportsGraph",
    "SupportsImplementations",
    "SupportsInitialWeights",
    "SupportsLoss",
    "SupportsMigration",
    "SupportsOperations",
    "SupportsOutputLayer",
    "SupportsParameterGroups",
    "SupportsParameterKinds",
    "SupportsPointer",
    "SupportsSample",
    "SupportsScaledLogits",
    "SupportsScore",
    "SupportsStep",
    "SupportsTokenBytes",
    "SupportsTokenizerJson",
    "SupportsTrainingInParts",
    "SupportsTransformers",
    "TensorSpec",
    "TextSample",
    "TokenAutomaton",
    "Tokenizer",
    "count_by_module",
    "hold_given",
    "is_embedding_table",
    "match_tensors",
]

__getattr__ = import_on_first_use(
    __name__,
    {
        "abilities": (
            "Copies Operation SupportsInitialWeights SupportsLoss SupportsOperations "
            "SupportsOutputLayer SupportsParameterGroups SupportsParameterKinds SupportsPointer "
            "SupportsScaledLogits count_by_module is_embedding_table match_tensors"
        ),
        "inputs": "hold_given",
        "model": (
            "CountTrained LanguageModel State SupportsCountMerge SupportsDevices SupportsExpert "
            "SupportsImplementations SupportsScore SupportsStep"
        ),
    },
)
