"""Numbers from arrays: metrics, calibration, intervals, verdicts and label savings."""
