"""The student at work: one step of its memory after another, outside of training."""
