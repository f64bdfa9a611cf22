"""From counts to a model."""
