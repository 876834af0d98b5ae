"""SQL for an app's database, as text: what it does, and in what form the app understands it.

An app looks at the first word, up to a blank, to decide what it answers. So white space is made one blank and comments
are taken out; WITH and VALUES, which it would run without an answer, are put into a SELECT. Of several statements in
one text it would run the first: they are refused.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from rsocket_broker.plugin_api import Invalid

MAX_SQL = 100_000
"""Characters of a statement. SQLite takes ten times that; it is read here, where everybody waits meanwhile."""

_TOKEN = re.compile(
    r"""(?P<space>\s++|--[^\n]*+|/\*(?:[^*]++|\*(?!/))*+(?:\*/|\Z))"""
    r"""|(?P<quoted>'(?:[^']++|'')*+'|"(?:[^"]++|"")*+"|`(?:[^`]++|``)*+`|\[[^\]]*+\])"""
    r"""|(?P<word>[^\W\d]\w*+)"""
    r"""|(?P<number>\d\w*+)"""
    r"""|(?P<other>\S)""",
    re.DOTALL,
)
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_KEYWORDS = frozenset(
    """
    ABORT ACTION ADD AFTER ALL ALTER ALWAYS ANALYZE AND AS ASC ATTACH AUTOINCREMENT BEFORE BEGIN BETWEEN BY CASCADE
    CASE CAST CHECK COLLATE COLUMN COMMIT CONFLICT CONSTRAINT CREATE CROSS CURRENT CURRENT_DATE CURRENT_TIME
    CURRENT_TIMESTAMP DATABASE DEFAULT DEFERRABLE DEFERRED DELETE DESC DETACH DISTINCT DO DROP EACH ELSE END ESCAPE
    EXCEPT EXCLUDE EXCLUSIVE EXISTS EXPLAIN FAIL FILTER FIRST FOLLOWING FOR FOREIGN FROM FULL GENERATED GLOB GROUP
    GROUPS HAVING IF IGNORE IMMEDIATE IN INDEX INDEXED INITIALLY INNER INSERT INSTEAD INTERSECT INTO IS ISNULL JOIN
    KEY LAST LEFT LIKE LIMIT MATCH MATERIALIZED NATURAL NO NOT NOTHING NOTNULL NULL NULLS OF OFFSET ON OR ORDER
    OTHERS OUTER OVER PARTITION PLAN PRAGMA PRECEDING PRIMARY QUERY RAISE RANGE RECURSIVE REFERENCES REGEXP REINDEX
    RELEASE RENAME REPLACE RESTRICT RETURNING RIGHT ROLLBACK ROW ROWS SAVEPOINT SELECT SET TABLE TEMP TEMPORARY THEN
    TIES TO TRANSACTION TRIGGER UNBOUNDED UNION UNIQUE UPDATE USING VACUUM VALUES VIEW VIRTUAL WHEN WHERE WINDOW
    WITH WITHOUT
    """.split()  # noqa: SIM905
)
_ABOUT = frozenset(
    """
    table_info table_xinfo table_list index_list index_info index_xinfo foreign_key_list foreign_key_check
    database_list collation_list function_list module_list pragma_list integrity_check quick_check
    """.split()  # noqa: SIM905
)
"""Pragmas that set nothing, whatever stands in their brackets."""
_READING = _ABOUT | frozenset(
    """
    application_id auto_vacuum busy_timeout cache_size compile_options data_version encoding foreign_keys
    freelist_count journal_mode max_page_count page_count page_size recursive_triggers schema_version secure_delete
    synchronous temp_store user_version wal_autocheckpoint
    """.split()  # noqa: SIM905
)
"""Pragmas that only tell something while nothing stands behind their names."""
_MAIN = frozenset({"SELECT", "VALUES", "INSERT", "UPDATE", "DELETE", "REPLACE"})
"""What a WITH may stand before."""


class Statement(NamedTuple):
    """One statement. `sql` is in the form for the app, `verb` its first word in capitals as it was written."""

    sql: str
    verb: str
    reads: bool
    """It changes nothing."""
    has_limit: bool
    """It says itself how many rows it may give."""

    def limited(self, rows: int) -> str:
        """For no more than so many rows, where it answers with rows and says nothing of their number itself."""
        if self.reads and self.verb in ("SELECT", "WITH", "VALUES") and not self.has_limit:
            return f"{self.sql} LIMIT {rows}"
        return self.sql


class _Token(NamedTuple):
    kind: str
    text: str
    depth: int
    """Brackets around it."""


def statement(text: str) -> Statement:
    """Raises Invalid for none, for several, and for a text that never ends."""
    if len(text) > MAX_SQL:
        raise Invalid(f"A statement has up to {MAX_SQL} characters.")
    tokens = list(_tokens(text))
    while tokens and tokens[-1].text in (" ", ";"):
        tokens.pop()
    if any(token.text == ";" for token in tokens) and not _makes_trigger(tokens):
        raise Invalid("One statement at a time: an app would run the first and say nothing of the others.")
    words = [token for token in tokens if token.kind == "word" and token.depth == 0]
    if not words or tokens[0].kind != "word":
        raise Invalid("A statement begins with a word, such as SELECT.")
    verb = tokens[0].text.upper()
    sql = f"{tokens[0].text} {''.join(token.text for token in tokens[1:]).lstrip()}".rstrip()
    if verb in ("WITH", "VALUES"):
        main = next((word.text.upper() for word in words if word.text.upper() in _MAIN), "")
        reads = main in ("SELECT", "VALUES")
        return Statement(f"SELECT * FROM ({sql})" if reads else sql, verb, reads, False)  # noqa: S608
    limit = any(word.text.upper() == "LIMIT" for word in words)
    return Statement(sql, verb, _reads(verb, tokens), limit)


def _tokens(text: str) -> Iterator[_Token]:
    """Words, quoted texts and signs, with one blank where there was white space or a comment between them."""
    depth, at = 0, 0
    begun = False
    while at < len(text):
        found = _TOKEN.match(text, at)
        assert found is not None  # whatever is no space is matched as something else
        kind, at = str(found.lastgroup), found.end()
        piece = found.group()
        if kind == "space":
            if begun:
                yield _Token(kind, " ", depth)
            while (more := _TOKEN.match(text, at)) is not None and more.lastgroup == "space":
                at = more.end()
            continue
        begun = True
        if kind == "other" and piece[0] in "'\"`[":
            raise Invalid(f"The text that begins with {piece[0]} at character {found.start()} never ends.")
        if piece == "\0":
            raise Invalid("A statement holds no zero character.")
        depth -= piece == ")"
        yield _Token(kind, piece, depth)
        depth += piece == "("


def _makes_trigger(tokens: list[_Token]) -> bool:
    """The body of a trigger has statements of its own, between BEGIN and END."""
    words = [token.text.upper() for token in tokens if token.kind == "word"]
    return words[0] == "CREATE" and "TRIGGER" in words[1:3] and words[-1] == "END"


def _reads(verb: str, tokens: list[_Token]) -> bool:
    if verb == "PRAGMA":
        return _pragma_reads([token.text for token in tokens if token.text != " "][1:])
    return verb in ("SELECT", "EXPLAIN")


def _pragma_reads(rest: list[str]) -> bool:
    """`name`, `schema.name`, and either with an argument in brackets; with = it sets something."""
    if rest[1:2] == ["."]:
        rest = rest[2:]
    name = rest[0].lower() if rest else ""
    if len(rest) == 1:
        return name in _READING
    return rest[1:2] == ["("] and name in _ABOUT


def quoted(name: str) -> str:
    """A name as it may be pasted into SQL: as it is where it is plain, since not every driver knows quotes."""
    if "\0" in name or not name:
        raise Invalid("A name has at least one character, and no zero character.")
    if _PLAIN_NAME.fullmatch(name) and name.upper() not in _KEYWORDS:
        return name
    return '"' + name.replace('"', '""') + '"'


def exact_page(table: str, columns: list[str], *, order: str, reverse: bool, start: int, count: int) -> str:
    """A page of a table with two columns for each: its type, and its value, a blob as hexadecimal digits."""
    pairs = ", ".join(
        f"typeof({one}), CASE typeof({one}) WHEN 'blob' THEN hex({one}) ELSE {one} END" for one in columns
    )
    ordered = f" ORDER BY {quoted(order)}{' DESC' if reverse else ''}" if order else ""
    return f"SELECT {pairs} FROM {quoted(table)}{ordered} LIMIT {count} OFFSET {start}"  # noqa: S608
