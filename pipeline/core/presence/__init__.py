"""How many people are really present where most visits have no check-out: evidence of closed days, a model, an estimate."""
