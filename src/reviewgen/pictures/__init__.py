"""Pictures: what all of them share, and the learning curves of a training. matplotlib is an extra, imported where it draws.

figures   whether a picture can be drawn at all, an empty figure, and its file
learning  bits per character, copy rate and learning rate against time, of one run or of several
"""

from reviewgen.pictures.figures import new_figure, plain, refuse_plot, save_figure
from reviewgen.pictures.learning import AXES, LearningCurves, draw_curves, find_curves

__all__ = ["AXES", "LearningCurves", "draw_curves", "find_curves", "new_figure", "plain", "refuse_plot", "save_figure"]
