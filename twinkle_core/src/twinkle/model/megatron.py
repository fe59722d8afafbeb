"""The path from which existing scripts import Megatron models; the same names as ``twinkle.model``."""

from twinkle.component import component_attributes

__getattr__, __dir__ = component_attributes(__name__, ["model"], globals())
