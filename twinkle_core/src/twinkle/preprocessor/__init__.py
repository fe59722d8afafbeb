"""The preprocessor and filter kinds: raw rows to trajectories, and which rows to keep.

``Preprocessor`` and ``Filter`` are the contracts. Any other name is looked up among the installed plugins' preprocessors and
filters. Knows nothing of tokens.
"""

from twinkle.component import component_attributes
from twinkle.preprocessor._base import DataFilter, Filter, Preprocessor, Row

__all__ = ["DataFilter", "Filter", "Preprocessor", "Row"]

__getattr__, __dir__ = component_attributes(__name__, ["preprocessor", "filter"], globals())
