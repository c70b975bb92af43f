"""Evaluations: a model and text in, rows of a report card out."""
