"""The scoreboard: Kirby beside what people would use instead, and beside the limits."""
