"""`llmi doctor`: what of this machine and configuration works, what does not, and what to do about it."""
