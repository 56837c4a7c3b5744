"""Plots with matplotlib, which is an extra and imported only inside the functions that draw.

figures   shared by all plots: check that one can be drawn, create a figure, save it
learning  learning curves: bits per character, copy rate and learning rate over time, of one run or several
"""

from reviewgen.pictures.figures import new_figure, plain, refuse_plot, save_figure
from reviewgen.pictures.learning import AXES, LearningCurves, draw_curves, find_curves

__all__ = ["AXES", "LearningCurves", "draw_curves", "find_curves", "new_figure", "plain", "refuse_plot", "save_figure"]
