"""From logits to text: sampling, beam search, and text as it comes."""
