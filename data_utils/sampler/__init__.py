"""Builds sampler data: scenes composed from sprites, where everything about the picture is known exactly.

The stages, in order: `stamps` or `shapes` make `sprites`; `splits` decides what training never shows; `scene` places
sprites on `backgrounds`; `language` says what is in the picture, `motion` makes it move; `write` makes tables of it.
Only numpy and Pillow are needed.
"""
