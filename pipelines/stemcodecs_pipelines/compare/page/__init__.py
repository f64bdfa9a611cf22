"""A comparison as one HTML file: offline, no script, light and dark, on screen and paper."""
