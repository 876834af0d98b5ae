"""`rsocket-broker app databases`: what is in an app's databases."""

from pathlib import Path
from typing import Any

import click

from rsocket_broker.cli.app.shared import ask, client_option, follow, out_option, show_rows, writing
from rsocket_broker.cli.context import Context, WholeNumber
from rsocket_broker.cli.render import cell, json_option, note, print_json
from rsocket_broker.errors import ApplicationError

PLUGIN = "Databases"

database_option = click.option(
    "--database", metavar="NAME", default="", help="Its name in `list`.  [default: the only one]"
)


@click.group()
def databases() -> None:
    """The SQLite databases of an app, through its database plugin.

    \b
    Examples:
      rsocket-broker app databases list
      rsocket-broker app databases query "SELECT * FROM users LIMIT 10"
      rsocket-broker app databases export users --out users.csv
    """


@databases.command("list")
@client_option
@json_option
@click.pass_obj
def list_(obj: Context, client: str | None, as_json: bool) -> None:
    """The app's databases.

    \b
    Example:
      rsocket-broker app databases list
    """
    found = ask(obj, client, PLUGIN, "list")["databases"]
    if as_json:
        print_json(found)
    elif not found:
        note("The app has no databases.")
    else:
        show_rows(([one["name"], one["tables"]] for one in found), ["DATABASE", "TABLES"])


@databases.command()
@database_option
@client_option
@json_option
@click.pass_obj
def tables(obj: Context, database: str, client: str | None, as_json: bool) -> None:
    """The tables and views of all databases, or of one.

    \b
    Example:
      rsocket-broker app databases tables --database app.db
    """
    found = ask(obj, client, PLUGIN, "list")["databases"]
    chosen = [one for one in found if database in ("", one["name"])]
    if not chosen and database:
        raise click.BadParameter(f'the app has no database "{database}".', param_hint="--database")
    if as_json:
        print_json(chosen)
    else:
        show_rows(([one["name"], table] for one in chosen for table in one["tables"]), ["DATABASE", "TABLE"])


@databases.command()
@click.argument("table")
@database_option
@client_option
@json_option
@click.pass_obj
def structure(obj: Context, table: str, database: str, client: str | None, as_json: bool) -> None:
    """The columns and indexes of TABLE.

    \b
    Example:
      rsocket-broker app databases structure users
    """
    about = {"table": table, "database": database}
    found = ask(obj, client, PLUGIN, "structure", about)
    if as_json:
        print_json(found | ask(obj, client, PLUGIN, "info", about))
        return
    parts = [rows for rows in (found["columns"], found["indexes"]) if rows]
    if not parts:  # SQLite has nothing to say of a table that is not there, and most apps pass that on
        raise ApplicationError(
            f"The app tells of no columns of {cell(table)}: `app databases tables` lists its tables."
        )
    for number, rows in enumerate(parts):
        if number:
            click.echo()
        show_rows((list(row.values()) for row in rows), [str(name).upper() for name in rows[0]])


@databases.command()
@click.argument("sql")
@click.option("--write", is_flag=True, help="Let the statement change something.")
@click.option(
    "--limit",
    type=WholeNumber(1, 10_000),
    default=1000,
    show_default=True,
    metavar="N",
    help="Most rows, if SQL has none.",
)
@database_option
@client_option
@json_option
@click.pass_obj
def query(obj: Context, sql: str, write: bool, limit: int, database: str, client: str | None, as_json: bool) -> None:
    """Run one SQL statement in the app. Without --write: SELECT, WITH, VALUES, EXPLAIN, and PRAGMAs that set nothing.

    Blobs lose bytes on their way: select hex(column) for the bytes. An iOS app chooses the database by itself.

    \b
    Examples:
      rsocket-broker app databases query "SELECT id, hex(photo) FROM users"
      rsocket-broker app databases query "DELETE FROM cart" --write
    """
    about: dict[str, Any] = {"sql": sql, "database": database}
    method = "execute" if write else "query"
    found = ask(obj, client, PLUGIN, method, about if write else {**about, "limit": limit})
    if as_json:
        print_json(found)
        return
    if found["columns"]:
        show_rows(([shown(value) for value in row] for row in found["rows"]), found["columns"])
    if found["affected"] is not None:
        note(f"{found['affected']} rows were changed.")
    if found["inserted_id"] is not None:
        note(f"The new row has the id {found['inserted_id']}.")
    if found.get("truncated"):
        note(f"There are more rows than {limit}: use --limit, or LIMIT and OFFSET.")
    if found["type"] == "raw":
        note("Done. The app says no more of such a statement.")


def shown(value: object) -> str:
    """A value in a table, null apart from a text without characters."""
    if value is None:
        return "NULL"
    if isinstance(value, dict):
        return f"X'{value['hex']}'" if "hex" in value else f"blob {value.get('text', '')}"
    return str(value) if value != "" else "''"


@databases.command()
@click.argument("table")
@click.option(
    "--format", "kind", type=click.Choice(["csv", "json", "jsonl"]), help="[default: by FILE's ending, or csv]"
)
@click.option("--order", metavar="COLUMN", default="", help="The column to order by.")
@click.option("--page", type=WholeNumber(1, 10_000), default=500, show_default=True, help="Rows asked for at a time.")
@out_option
@database_option
@client_option
@click.pass_obj
def export(obj: Context, /, table: str, kind: str | None, client: str | None, out: Path | None, **about: Any) -> None:
    """All rows of TABLE as CSV or JSON, with the bytes of blobs in hexadecimal digits.

    \b
    Example:
      rsocket-broker app databases export users --out users.csv
    """
    ending = "" if out is None else out.suffix.removeprefix(".")
    chosen = kind or (ending if ending in ("csv", "json", "jsonl") else "csv")
    with writing(out) as write:
        follow(obj, client, PLUGIN, "export", {"table": table, "format": chosen, **about}, write, whole=True)
    if out is not None:
        note(f"Wrote {cell(table)} into {out}.")
