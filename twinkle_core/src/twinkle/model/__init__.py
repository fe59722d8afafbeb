"""The model kind: what trains.

``TwinkleModel`` is the contract of a model backend. Any other name is looked up among the installed plugins' models.
"""

from twinkle.component import component_attributes
from twinkle.model._base import TwinkleModel

__all__ = ["TwinkleModel"]

__getattr__, __dir__ = component_attributes(__name__, ["model"], globals())
