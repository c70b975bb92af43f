"""The parts models are made of. They take plain arguments, never a model's config."""
