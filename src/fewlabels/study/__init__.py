"""Comparisons: plan, run cell by cell, choose within the label budget, and sum up."""
