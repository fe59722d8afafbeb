"""A small real model and small data sets, so that everything in Twinkle can be tried with no network.

``tasks`` generates arithmetic and countdown, ``hub`` serves what is here as ``tiny://…``, ``quickstart`` is the command. Imports
nothing by itself.
"""
