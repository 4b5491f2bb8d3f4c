"""A machine that joins the queues by hand: what it has, what it starts there, how that is kept and ended."""
