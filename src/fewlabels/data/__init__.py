"""From files on disk to arrays: sources, manifest, splits, label budget, audit and store."""
