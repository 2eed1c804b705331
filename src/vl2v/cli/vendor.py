"""`vl2v vendor ...`: serving, and the accounts. Everything heavy is imported when a command runs."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vl2v.cli.common import guarded, make_limits, need_packages
from vl2v.errors import ConfigError

if TYPE_CHECKING:
    from vl2v.vendor.accounts import Account, Accounts

Db = Annotated[
    str, typer.Option("--db", envvar="VL2V_VENDOR_DB", help="sqlite:///<file> or postgresql://<user>@<host>/<name>.")
]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]
DEFAULT_DB = "sqlite:///vl2v-vendor.sqlite"


def _env(name: str, text: str) -> Any:
    return typer.Option(envvar=f"VL2V_VENDOR_{name}", help=text)


def serve(
    teacher: Annotated[str, _env("TEACHER", "What is sold: open_clip:<model>/<tag or file>, file:<path>, conse:.")],
    host: Annotated[str, _env("HOST", "Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, _env("PORT", "TCP port.")] = 8080,
    db: Db = DEFAULT_DB,
    tls_cert: Annotated[str | None, _env("TLS_CERT", "Certificate chain, PEM; none behind a proxy.")] = None,
    tls_key: Annotated[str | None, _env("TLS_KEY", "Private key, PEM.")] = None,
    device: Annotated[str | None, _env("DEVICE", "Where the model runs; chosen if not given.")] = None,
    allow_image_host: Annotated[
        list[str] | None,
        _env("IMAGE_HOSTS", "A host that image URLs may name (with :port if not the usual one); may be repeated."),
    ] = None,
    max_inputs: Annotated[int, _env("MAX_INPUTS", "Inputs of a request.")] = 64,
    max_body_mb: Annotated[int, _env("MAX_BODY_MB", "Megabytes of a request.")] = 64,
    max_image_mb: Annotated[int, _env("MAX_IMAGE_MB", "Megabytes of an image file.")] = 10,
    max_megapixels: Annotated[int, _env("MAX_MEGAPIXELS", "Million pixels of an image.")] = 20,
    queue: Annotated[int, _env("QUEUE", "Inputs that may wait, over all clients.")] = 1024,
    wait_ms: Annotated[float, _env("WAIT_MS", "How long a batch waits for other clients.")] = 2.0,
    idempotency_hours: Annotated[float, _env("IDEMPOTENCY_HOURS", "How long answers are kept.")] = 24.0,
) -> None:
    """Sell a model on this machine by the query."""
    _need_packages()
    from vl2v.vendor.running import serve as run
    from vl2v.vendor.settings import VendorSettings

    limits = replace(make_limits(max_inputs, max_body_mb, max_image_mb, max_megapixels), queue=queue)
    run(
        VendorSettings(
            teacher=teacher,
            db=db,
            host=host,
            port=port,
            tls_cert=tls_cert,
            tls_key=tls_key,
            image_hosts=tuple(allow_image_host or ()),
            wait_ms=wait_ms,
            idempotency_hours=idempotency_hours,
            device=device,
            limits=limits,
        )
    )


def create(
    name: Annotated[str, typer.Argument(help="What to call the client.")],
    price_per_1000_images: Annotated[str, typer.Option(help="Price of 1000 images.")] = "0",
    price_per_1000_texts: Annotated[str, typer.Option(help="Price of 1000 texts.")] = "0",
    currency: Annotated[str, typer.Option(help="Of prices and quota.")] = "USD",
    quota: Annotated[str | None, typer.Option(help="The most it may spend in all; no bound if not given.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="No bound if not given.")] = None,
    db: Db = DEFAULT_DB,
    as_json: Json = False,
) -> None:
    """Open an account and show its key, this once."""
    from vl2v.teacher.base import Price

    price = Price(_amount(price_per_1000_images), _amount(price_per_1000_texts), currency)
    account, key = _accounts(db).create(name, price, quota=quota, requests_per_minute=requests_per_minute)
    if as_json:
        print(json.dumps(_row(account) | {"key": key}))
    else:
        print(f"account {account.id}\nkey     {key}\nThe key is not kept and cannot be shown again.")


def show(db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """List accounts, what they may spend and what they spent."""
    rows = [_row(account) for account in _accounts(db).all()]
    if as_json:
        print(json.dumps(rows))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    columns = ("id", "name", "requests", "images", "texts", "spent", "quota", "currency", "revoked")
    for column in columns:
        table.add_column(column, no_wrap=column == "id")  # revoking needs all of it
    for row in rows:
        table.add_row(*("-" if row[column] is None else str(row[column]) for column in columns))
    Console(markup=False, highlight=False).print(table)


def revoke(
    account: Annotated[str, typer.Argument(help="The account's id, from: vl2v vendor keys list.")], db: Db = DEFAULT_DB
) -> None:
    """Close an account: its key opens nothing from now on."""
    closed = _accounts(db).revoke(account)
    print(f"account {closed.id} is closed")


def attach(root: typer.Typer) -> None:
    """Add the commands to the command line.

    Args:
        root: vl2v's.
    """
    vendor = typer.Typer(help="Sell a model by the query (extra: vendor).", no_args_is_help=True)
    keys = typer.Typer(help="Accounts and their keys.", no_args_is_help=True)
    vendor.command("serve")(guarded(serve))
    keys.command("create")(guarded(create))
    keys.command("list")(guarded(show))
    keys.command("revoke")(guarded(revoke))
    vendor.add_typer(keys, name="keys")
    root.add_typer(vendor, name="vendor")


def _accounts(db: str) -> Accounts:
    _need_packages()
    from vl2v.vendor.accounts import Accounts
    from vl2v.vendor.database import open_database

    return Accounts(open_database(db))


def _need_packages() -> None:
    need_packages("The vendor service", "vendor", "fastapi", "httpx", "prometheus_client", "sqlalchemy", "uvicorn")


def _amount(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite():
        expected = "a number such as 0.60"
        raise ConfigError("A price is no number.", expected=expected, found=text[:40], next_step="correct it")
    return amount


def _row(account: Account) -> dict[str, Any]:
    from vl2v.vendor.money import written

    return {
        "id": account.id,
        "name": account.name,
        "requests": account.requests,
        "images": account.images,
        "texts": account.texts,
        "spent": written(account.spent_nano),
        "quota": None if account.quota_nano is None else written(account.quota_nano),
        "currency": account.currency,
        "price_per_1000_images": written(account.image_nano * 1000),
        "price_per_1000_texts": written(account.text_nano * 1000),
        "requests_per_minute": account.requests_per_minute,
        "created": account.created.isoformat(),
        "revoked": None if account.revoked is None else account.revoked.isoformat(),
    }
