"""What else could store a scan, and how large it would be."""
