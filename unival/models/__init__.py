"""The encoder-decoder: registration, configuration, layers and positions.

Shapes in the docstrings and comments of this package use one legend:

- ``b`` batch, ``s`` source length, ``t`` target length, ``c`` width (channels), ``h`` attention heads, ``d`` width of a head, ``v``
  vocabulary, ``n`` items (images, videos, audio clips or states; there may be more or fewer than ``b``);
- other axes are spelled out: an image is ``n x 3 x height x width``, a video ``n x 3 x time x height x width``, audio ``n x samples``.

Boolean masks state their polarity where they are described; a padding mask is True at padding.
"""
