"""A classifier that routes: text in, one route out."""
