"""What a job is and what may become of it: pure values and functions, no clock, no store, no network."""
