"""The addresses and answers of Core 2's pipeline gateway and service mesh."""
