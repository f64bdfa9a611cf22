"""Temporal compressive sensing of movies: the method ``tcs``, and the training of its networks."""
