"""Build sampler data: images and videos composed of sprites, and recordings of named sounds, with exactly known content.

Images: ``stamps`` or ``shapes`` make ``sprites``; ``splits`` decides what training never shows; ``scene`` places sprites on
``backgrounds``; ``language`` says what is in the image; ``write`` makes rows of it. Videos: ``motion`` and ``crossing`` make a
scene move, or ``emoji`` makes ``animated`` sprites; ``motion_language`` says how; ``video`` and ``clips`` make rows of it. Sounds:
``synth`` or the stamps make ``sounds``; ``hearing`` says what is heard; ``audio`` makes rows of it, ``image_audio`` rows with
both. ``settings`` holds what decides the data, ``tables`` writes it. Only numpy and Pillow are needed, for sounds soundfile
as well.
"""
