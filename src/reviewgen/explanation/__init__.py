"""What a model computes on a text, with the actual numbers: operations, loss, counts, gates, hidden units.

explaining   reviewgen.explain: joins the parts
subject      the model: loaded, or initialised
batch        texts as ids, targets and tokens for display
walk         each operation: of a model that describes itself, or
modules      of any other, by forward hooks
loss         logits to bits per character
counts       the contexts and counts behind a token
units        gates, and hidden units that follow a property of the text
measured     the texts that units are measured on
explanation  Explanation
results      its parts, as plain data
page         what the templates of its page need
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from reviewgen.explanation.explaining import explain
    from reviewgen.explanation.explanation import Explanation

__all__ = ["Explanation", "explain"]

__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs={"explaining": ["explain"], "explanation": ["Explanation"]})
