"""Run folders: what passes between stages, written so that nothing half-done is ever read."""
