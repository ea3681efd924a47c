"""The one training loop, its durations, schedule, checkpoints and progress."""
