"""Data: from documents to a memory-mapped token cache to the batches of each optimizer step."""
