"""Calls steps: in this process, on other servers, split over several models, bounded in time."""
