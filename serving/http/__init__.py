"""What every route shares: bodies, errors, descriptions."""
