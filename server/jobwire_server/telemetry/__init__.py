"""What the server tells of itself: numbers, logs, traces. Anything may be measured, so it imports nothing of ours."""
