"""The Hydra boundary: typed schemas, composition, frozen configs and explanations."""
