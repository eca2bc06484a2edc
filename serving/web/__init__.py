"""One file a group of routes; each builds its router around the objects it is given."""
