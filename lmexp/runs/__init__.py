"""Runs: their folders, and creating, executing, resuming, loading and listing them."""
