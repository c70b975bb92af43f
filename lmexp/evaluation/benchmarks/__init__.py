"""Evaluations that ask a model the items of a file: multiple choice, pairs of sentences, last words."""
