"""Statistics of scores: intervals, the bootstrap, paired tests, corrections, power, components of variance."""
