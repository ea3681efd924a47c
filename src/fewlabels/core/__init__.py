"""Types, errors and seeding: the floor everything else stands on."""
