"""Training: Lightning's Trainer with typed configs, exact resume and measured truth."""
