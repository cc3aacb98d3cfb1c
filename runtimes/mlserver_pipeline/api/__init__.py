"""What clients see: the addresses and answers of Core 2's gateway and mesh."""
