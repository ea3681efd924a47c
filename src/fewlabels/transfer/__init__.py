"""From an encoder and a few labels to a classifier: by its features or by its parameters."""
