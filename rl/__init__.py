"""Learning the plan with RLlib: environments, training runs and evaluation."""
