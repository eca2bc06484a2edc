"""The store: flagged answers and a share of the others, in a database, for review, feedback and further training."""
