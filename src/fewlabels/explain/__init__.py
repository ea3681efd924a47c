"""What a classifier sees and where it errs."""
