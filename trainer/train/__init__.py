"""One step, many steps, and what is known about them."""
