"""Backbones: networks that extract features from images, videos and audio, as plain modules without other parts of this package."""
