"""Models: from token ids to logits, and from logits to text."""
