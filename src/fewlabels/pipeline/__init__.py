"""The stages of the journey as typed functions, and the verbs that keep their results."""
