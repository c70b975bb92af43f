"""Tasks: LightningModules that say what a model is trained to do."""
