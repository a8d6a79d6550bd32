"""Measurements of the pipeline against its ceiling; ``make bench`` runs them."""
