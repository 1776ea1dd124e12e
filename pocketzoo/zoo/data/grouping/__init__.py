"""Which samples come of one source: as a user says, or by what they have in common."""
