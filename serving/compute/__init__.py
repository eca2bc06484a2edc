"""Computing apart: the models in a process of their own, so that networks and requests share no interpreter lock."""
