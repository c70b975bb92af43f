"""Tokenizers: text to token ids and back, trained here or loaded from a file."""
