"""COCO-style tokenisation: captions to lower-case Penn Treebank tokens without punctuation.

Published caption scores are computed on the output of Stanford's PTB tokenizer without a list of punctuation tokens.
``tokenize`` gives the same tokens without Java. Its rules and lists were found by trying words in context on that tokenizer
(CoreNLP 3.4.1, as pycocoevalcap 1.2 ships it). Of all 616,767 captions of COCO 2014 only 5 differ, because there the Java program
looks ahead into the next caption. ``PtbTokenizer`` runs the Java program.

Some results are surprising, and are kept because published scores include them: brackets are not removed but become ``-lrb-``
and ``-rrb-`` (the list of punctuation has them in upper case, the tokens are in lower case), ``!!``, ``&`` and ``/`` are kept,
and ``table.A`` is one token.
"""

import functools
import pathlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable

from unival.errors import UserError, counted, unknown
from unival.metrics.java import UTF8, java_command, java_program, last_line

Tokenizer = Callable[[str], tuple[str, ...]]  # raw text -> lower-case tokens

PTB_JAR, PTB_CLASS = "tokenizer/stanford-corenlp-3.4.1.jar", "edu.stanford.nlp.process.PTBTokenizer"

PUNCTUATION = frozenset(['"', "''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

# Characters that the tokenizer replaces. Quotes and dashes become punctuation, which is removed.
_SPELLED_OUT = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-",
    "£": "#", "€": "$", "¤": "$", "¢": "cents", "½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3",
}  # fmt: skip
_UNICODE = str.maketrans({
    **dict.fromkeys("‘’‛‹›", "'"), **dict.fromkeys("“”«»", '"'), **dict.fromkeys("–—―", " -- "),
    "…": " ... ", "\xad": None, "\u200b": " ", "\ufeff": " ",
})  # fmt: skip
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&nbsp;": " "}
_ENTITY = re.compile("|".join(_ENTITIES), re.IGNORECASE)
_ASTRAL = re.compile("[\U00010000-\U0010ffff]")  # emoji etc., which the Java lexer drops

# Words that keep a final period, in four lists: in lower, Title and UPPER case; not in UPPER; not in lower; before a number only.
_ABBREVIATIONS = """
    adj adm adv al ala alex apr ariz assn assoc asst atty aug ave bldg blvd brig bros calif capt cf cmdr co col colo
    comdr conn corp cos cpl ct dak dec dept det dr drs elec ens esq est etc ext feb fla fri ft ga gen gov hon inc ind
    insp intl invt jan jos jr jul jun kan kans ky lieut lt ltd maj mar md messrs mich minn mlle mme mo mon mont mr mrs
    ms msgr mt natl neb nev nov oct okla penn ph plc pres prof pvt rd rep reps rev rt sen sens sep sept seq sgt sq sr
    st ste supt sys tel tenn thu thurs treas tue tues univ va vs vt wed wis wisc wm wyo
"""
_ABBREVIATIONS_NOT_UPPER = "mfg mtg pte pty"
_ABBREVIATIONS_NOT_LOWER = "ark az del ill la mass miss ore pa tex wash"
_ABBREVIATIONS_OF_NUMBERS = "art ca fig figs no nos op pp prop"
# After a single letter and a period, these words start a new sentence ("vitamin A. The ..."), so the period is a token of its own.
_STARTERS = """
    a about according after an as at but earlier he her here however if in it last many more now once one other our she
    since so some such that the their then there these they this we what when while yet you
"""


def _any_of(words: str, *cases: Callable[[str], str]) -> str:
    """A pattern that matches any of the words in any of the cases, longer words first."""
    forms = {case(word) for word in words.split() for case in cases}
    return "(?:" + "|".join(sorted(forms, key=lambda form: (-len(form), form))) + ")"


_LETTER = r"[^\W\d_²³¹⁰-⁹₀-₉¼-¾⅐-⅞]"
_WORD = rf"(?:{_LETTER}[\u0300-\u036f]*|[0-9])"  # one character of a word
_END = rf"(?!{_WORD})"
_ALONE = rf"(?!{_WORD}|[.!?]{_LETTER})"
_ACCENTED = rf"{_LETTER}[\u0300-\u036f]*"
_DOTTED = rf"{_ACCENTED}{_WORD}*(?:[.!?]{_ACCENTED}{_WORD}*)*"  # table.A is one token; so is what?No
_DOMAIN = r"(?:[A-Za-z0-9_][\w-]*\.)+"
_TAIL = r"""[^\s"<>|.!?(){},]"""  # last character of a web address
_ABBREVIATION = "|".join((
    _any_of(_ABBREVIATIONS, str.lower, str.capitalize, str.upper),
    _any_of(_ABBREVIATIONS_NOT_UPPER, str.lower, str.capitalize),
    _any_of(_ABBREVIATIONS_NOT_LOWER, str.capitalize, str.upper),
))  # fmt: skip

# The first alternative that matches wins; each is greedy, and longer tokens come before their prefixes.
_TOKEN = re.compile(
    r"\s*(" + "|".join((
        r"(?!(?i:cannot|gonna|gotta|gimme|lemme|wanna)\b)[A-Za-z]+(?=[ ,]|$)",  # fast path for most words
        r"<!--.*?-->|</?[A-Za-z][^<>]*>",  # markup
        rf"""https?://[^\s"<>|(){{}}]*{_TAIL}""",
        r"[\w.]+@[\w.]*\w",  # e-mail addresses
        rf"""(?:www\.{_DOMAIN}[A-Za-z]{{2,4}}|(?=[A-Za-z]){_DOMAIN}(?:com|net|org|edu)){_END}(?:/[^\s"<>|(){{}}]+{_TAIL})?""",
        r"[A-Z]+(?:&[A-Z]+)+(?:\.(?=[,;:]))?",  # AT&T
        r"[A-Za-z]\+\+|[CcFf]#|[A-Z]{1,2}\$",  # C++, US$
        rf"(?:[A-Za-z]\.)+(?:-{_WORD}+)+",  # U.S.-based
        rf"{_WORD}(?:[.,]?[0-9]|{_LETTER})*\.?-(?:[A-Za-z]\.){{2,}}",  # non-U.S.
        rf"{_DOTTED}(?:-{_WORD}+)*\.(?=[,;:])|{_WORD}+\.(?=[,;:])",  # "it., and" keeps the period
        rf"{_WORD}(?:[.,]?[0-9]|{_LETTER})*\.?-{_WORD}+(?:[-_/]{_WORD}+)*",  # snow-covered, 3.5-inch, 18-wheeler
        rf"{_WORD}+(?:[-_/]{_WORD}+)+",  # his/her, 1/2, foo_bar
        rf"[A-Za-z]*[A-MO-Za-mo-z](?=[Nn]['`][Tt])|[Nn]['`][Tt]{_END}",  # do n't
        rf"(?i:can(?=not{_ALONE})|(?:gon|wan)(?=na{_ALONE})|got(?=ta{_ALONE})|(?:gim|lem)(?=me{_ALONE}))",  # can not
        rf"(?:[dlnoDLNO]|(?![IY])[A-Z])'{_LETTER}{{2,}}(?:-{_WORD}+)*",  # o'clock, d'art, S'more
        rf"{_LETTER}+[aeiouAEIOU]'[aeiouAEIOU]{_LETTER}*",  # Hawai'i, graffiti'ed
        r"(?i:ma'am|c'mon|cap'n|ne'er|e'er|o'er|nor'easter|s'mores|hallowe'en|li'l|nat'l|ev'ry|ha'n't|somethin'|dunkin'|ol')",
        r"[dljDLJ]'|[yY]'(?=[A-Za-z]{2})",  # y' all
        rf"'[Tt](?=(?i:is|was)(?:{_END}|n't))|'[nN]'|'[nN](?=\s|$)",  # 't is, 'n'
        rf"'(?:(?i:em|till?|cause){_END}|[0-9]0[sS](?![\w'])|[0-9]{{2}}(?=\s|$))",  # 'em, '90s, '05
        rf"'(?:[sSmMdD]|[lL][lL]|[rR][eE]|[vV][eE])(?!{_LETTER})",  # 's 'm 'd 'll 're 've
        rf"[A-Za-z](?=\.(?:\s+{_any_of(_STARTERS, str.capitalize, str.upper)}\b|\s*$))",  # "vitamin A. The"
        rf"(?:[A-Za-z]\.)+(?!{_LETTER})",  # U.S., p.m., and a single letter
        r"Ph\.D\.",
        rf"(?:{_ABBREVIATION})\.(?!{_LETTER})|(?i:{_any_of(_ABBREVIATIONS_OF_NUMBERS, str.lower)})\.(?=\s*[0-9])",
        r"-{2,}",
        r"[-+]?[0-9]*(?:[.,:][0-9]+)+",  # 3.5, 10,000, 12:30, +.5
        rf"{_DOTTED}(?:-{_WORD}+)*",
        rf"{_WORD}+",
        r"[-+][0-9]+",
        r"[<>]?[:;=][-o*']?[()DPdpO\\@|\[\]{](?![A-Za-z0-9])|\^_\^",  # smileys
        r"@[A-Za-z]\w*|#[A-Za-z]+|@{2,}",  # handles, hash tags
        r"\([0-9]{2,3}\)\s?[0-9]{3,4}(?:[- ][0-9]{3,4})+",  # telephone numbers
        r"\.{3,}|(?:\. ){2,}\.|[?!]+|\*+|_+|##+|<<|>>|''|``",
        r"\S",
    )) + ")"
)  # fmt: skip

_DOTS_OR_DASHES = re.compile(r"\.[. ]*|-{1,4}")
_LONG_SPACE = re.compile(r"\s{3,}")  # shortened to two spaces: the patterns above would try to match from each of them
WINDOW = 2000  # characters that are matched at a time; every token is shorter than half of it


@functools.lru_cache(maxsize=1 << 16)
def tokenize(text: str) -> tuple[str, ...]:
    """The default tokenizer: lower-case Penn Treebank tokens of ``text`` without punctuation, as pycocoevalcap scores them.

    >>> tokenize('A man\'s dog (asleep) can\'t see "it".')
    ('a', 'man', "'s", 'dog', '-lrb-', 'asleep', '-rrb-', 'ca', "n't", 'see', 'it')
    """
    text = _ENTITY.sub(lambda match: _ENTITIES[match.group().lower()], text.translate(_UNICODE))
    text = _LONG_SPACE.sub(lambda match: match.group()[:2], _ASTRAL.sub(" ", text)).strip()
    tokens = " ".join(map(_spell_out, _find(text))).lower().split()
    return tuple(token for token in tokens if token not in PUNCTUATION and not _DOTS_OR_DASHES.fullmatch(token))


def _find(text: str) -> list[str]:
    """Find the tokens in linear time: a pattern that searches for a missing end searches within one window only."""
    if len(text) <= WINDOW:
        return _TOKEN.findall(text)
    tokens: list[str] = []
    start = 0
    while start < len(text):
        end = start + WINDOW
        sure = len(text) if end >= len(text) else start + WINDOW // 2  # a token that starts before has enough context after it
        start = end
        for match in _TOKEN.finditer(text, end - WINDOW, end):
            if match.start(1) >= sure:
                start = match.start(1)
                break
            tokens.append(match[1])
    return tokens


def _spell_out(token: str) -> str:
    """Write brackets and special characters as the treebank does; also round brackets inside smileys and telephone numbers."""
    return _SPELLED_OUT.get(token) or token.replace("(", "-lrb-").replace(")", "-rrb-")


class PtbTokenizer:
    """Stanford's PTB tokenizer in Java, as pycocoevalcap runs it.

    Args:
        texts: texts to tokenise in one run; for any other text Java is started again.

    Raises:
        UserError: Java or pycocoevalcap is not installed, or the program failed.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._jar = java_program("The PTB tokenizer", PTB_JAR)
        self._java = java_command("The PTB tokenizer")
        self._known: dict[str, tuple[str, ...]] = {}
        self._run(dict.fromkeys(texts))

    def __call__(self, text: str) -> tuple[str, ...]:
        """Lower-case tokens of a text without punctuation."""
        if text not in self._known:
            self._run([text])
        return self._known[text]

    def _run(self, texts: Iterable[str]) -> None:
        lines = {text: " ".join(text.split()) for text in texts}
        asked = [text for text, line in lines.items() if line]
        self._known.update((text, ()) for text, line in lines.items() if not line)
        if not asked:
            return
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "texts")
            file.write_text("".join(lines[text] + "\n" for text in asked), encoding="utf-8")
            command = [self._java, UTF8, "-cp", str(self._jar), PTB_CLASS]
            command += ["-preserveLines", "-lowerCase", "-encoding", "UTF-8", str(file)]
            done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        answers = done.stdout.split("\n")[:-1]
        if done.returncode or len(answers) != len(asked):
            raise UserError(
                f"the PTB tokenizer failed after {len(answers)} of {counted(len(asked), 'line')} with exit code {done.returncode}: "
                f"{last_line(done.stderr)}"
            )
        for text, answer in zip(asked, answers, strict=True):
            self._known[text] = tuple(token for token in answer.split() if token not in PUNCTUATION)


TOKENIZERS: dict[str, Callable[[Iterable[str]], Tokenizer]] = {
    "python": lambda texts: tokenize,
    "ptb": PtbTokenizer,
}


def make_tokenizer(name: str, texts: Iterable[str] = ()) -> Tokenizer:
    """Create a tokenizer by name.

    Args:
        name: a key of ``TOKENIZERS``.
        texts: texts that will be tokenised; "ptb" tokenises them in one run.

    Raises:
        UserError: unknown name, or "ptb" without Java or pycocoevalcap.
    """
    if name not in TOKENIZERS:
        raise UserError(unknown("tokenizer", name, TOKENIZERS))
    return TOKENIZERS[name](texts)
