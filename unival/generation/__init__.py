"""Decoding: beam search and sampling with forced prefixes, candidate answers and token ranges."""

from unival.generation.search import UnivalGenerator, build_generator
from unival.generation.trie import Trie

__all__ = ["Trie", "UnivalGenerator", "build_generator"]
