"""The path from which existing scripts import preprocessors; the same names as ``twinkle.preprocessor``."""

from twinkle.component import component_attributes

__getattr__, __dir__ = component_attributes(__name__, ["preprocessor", "filter"], globals())
