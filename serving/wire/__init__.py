"""What both protocols share: envelopes checked by pydantic, numbers as arrays, the base of all types. No torch."""
