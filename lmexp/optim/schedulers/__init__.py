"""Learning-rate schedules: pure functions of the optimizer step."""
