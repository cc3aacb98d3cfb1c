"""What a manifest says, and whether it can work."""
