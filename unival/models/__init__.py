"""The encoder-decoder: registration, configuration, layers and positions."""
