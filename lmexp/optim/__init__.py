"""Optimizers, learning-rate schedules and who gets weight decay."""
